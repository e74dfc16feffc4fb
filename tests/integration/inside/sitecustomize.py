"""Trouble inside a daemon under test, which Python loads at its start from the folder that PYTHONPATH names.

A file system that hangs: a real one takes root (FUSE, NFS), and nothing that a test could put at a path hangs the
daemon, which waits neither for pipes nor for locks. Python tells its audit hooks of each file that is about to be
opened, by whatever code and in whatever thread, and opens it once they have returned.

A call that raises what nobody foresaw: no server and no file can make real code raise it, so the methods through which
a rotation reaches the world are wrapped here, in the process of the daemon alone.
"""

from __future__ import annotations

import functools
import importlib
import os
import pkgutil
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# What of the Protocols in core/ports.py is real, wherever in the package it is.
CALLS = {
    "HttpTokenEndpoint": ("grant", "verify"),
    "FileSink": ("look", "publish", "read_record", "write_record"),
    "KvSink": ("look", "publish", "read_record", "write_record"),
    "SecretResolver": ("resolve",),
}


def _hang(folder: str, flag: str) -> None:
    """Whatever opens this folder, or something below it, hangs while there is a file `flag`."""

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event == "open" and isinstance(arguments[0], str) and (arguments[0] + "/").startswith(folder + "/"):
            while os.access(flag, os.F_OK):
                time.sleep(0.05)

    sys.addaudithook(hook)


def _raise(flag: str) -> None:
    """Each of these calls for the token `raises-CALL` raises what stands in the file `flag`, while it is there.

    A file beside it, `flag.CALL`, tells that it did.
    """
    owners: dict[str, str] = {}  # by access token

    def subject(of: object, arguments: tuple[object, ...], result: object = None) -> str:
        """What a call is about, as a text that has the name of the token in it."""
        username = next((it.username for it in arguments if hasattr(it, "username")), "")
        if username and hasattr(result, "access_token"):
            owners[result.access_token.reveal()] = username
        owner = next((owners.get(it.reveal(), "") for it in arguments if hasattr(it, "reveal")), "")
        return f"{getattr(of, 'name', '')} {username} {owner} {' '.join(map(str, arguments))}"

    def wrapped(call: str, method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def wrapper(self: object, *arguments: object, **keys: object) -> object:
            if f"raises-{call}" in subject(self, arguments) and os.access(flag, os.F_OK):
                with open(flag, encoding="utf-8") as file:  # noqa: PTH123 -- as little of the library as can be
                    secret = file.read()
                with open(f"{flag}.{call}", "w", encoding="utf-8"):  # noqa: PTH123
                    pass
                raise RuntimeError(secret) from ValueError(secret)
            result = method(self, *arguments, **keys)
            subject(self, arguments, result)
            return result

        return wrapper

    for kind in _classes():
        for call in CALLS[kind.__name__]:
            setattr(kind, call, wrapped(call, getattr(kind, call)))


def _classes() -> Iterator[type]:
    """The classes of these names, wherever in the package they are."""
    import aca_tokend

    missing = set(CALLS)
    for module in pkgutil.walk_packages(aca_tokend.__path__, "aca_tokend."):
        if module.name.startswith(("aca_tokend.demo", "aca_tokend.__main__")):
            continue
        for value in vars(importlib.import_module(module.name)).values():
            if isinstance(value, type) and value.__name__ in missing and value.__module__ == module.name:
                missing.remove(value.__name__)
                yield value
    if missing:
        sys.exit(f"the package has no {', '.join(sorted(missing))} any more")


if "HANGING_FOLDER" in os.environ:
    _hang(os.environ["HANGING_FOLDER"], os.environ["HANGING_FLAG"])
if "RAISING_FLAG" in os.environ:
    _raise(os.environ["RAISING_FLAG"])
