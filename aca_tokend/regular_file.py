"""Reads files that others name: never one that is none, nor more than there may be of it."""

from __future__ import annotations

import errno
import os
import stat


def read_regular(path: str, most: int) -> tuple[bytes, os.stat_result]:
    """What a regular file of at most so many bytes holds, without waiting for anybody.

    Raises:
        OSError: it cannot be read; ENXIO where it is no regular file, and EFBIG where it holds more.
        ValueError: no file can have that path.
    """
    # O_NONBLOCK: opening a named pipe would wait for a writer for ever. Symbolic links are followed, as a Kubernetes
    # volume is made of them; what counts is the file they lead to.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            code = errno.EISDIR if stat.S_ISDIR(status.st_mode) else errno.ENXIO
            raise OSError(code, os.strerror(code))
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            content = file.read(most + 1)
        if content is None:  # it waits for somebody, as some files of /proc do
            raise OSError(errno.ENXIO, os.strerror(errno.ENXIO))
    finally:
        os.close(descriptor)
    if len(content) > most:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
    return content, status
