"""What the process asks of the system, in processes of its own; tests/integration/test_security.py has the rest."""

from __future__ import annotations

import subprocess
import sys

ARENAS = """
import ctypes, sys, threading
from aca_tokend.process import save_memory

if sys.argv[1] == "yes":
    save_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
together = threading.Barrier(8)
def work():
    together.wait()
    assert libc.malloc(1000)
    together.wait()
threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
libc.malloc_info(0, ctypes.c_void_p.in_dll(libc, "stdout"))
libc.fflush(None)
"""


FIRST = """
import sys
from aca_tokend import process
process.harden = lambda: print(*sys.modules)
import aca_tokend.__main__
"""


def _told(program: str, *arguments: str) -> str:
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True)
    return done.stdout


def test_threads_share_one_arena() -> None:
    """Once asked to save memory, malloc keeps one arena for all threads, where it would keep several."""
    assert _told(ARENAS, "no").count("<heap nr=") > 1
    assert _told(ARENAS, "yes").count("<heap nr=") == 1


def test_hardened_before_what_takes_time_is_imported() -> None:
    """While modules are imported, others of the same user must not be able to read the memory already."""
    loaded = _told(FIRST).split()
    assert "aca_tokend.process" in loaded
    assert not {"typer", "click", "rich", "pydantic", "aca_tokend.cli"} & set(loaded)


def test_all_threads_save_cpu() -> None:
    """Once asked to, every thread that begins is scheduled like a batch job."""
    program = """
import os, threading
from aca_tokend.process import save_cpu

save_cpu()
thread = threading.Thread(target=lambda: print(os.sched_getscheduler(0) == os.SCHED_BATCH))
thread.start()
thread.join()
"""
    assert _told(program) == "True\n"


def test_orphan_that_ended_by_itself_is_kept_no_longer() -> None:
    """What was begun before a run, and could not be ended then, leaves nothing once it has ended."""
    program = """
import subprocess, threading, time
from pathlib import Path
from aca_tokend.process import _orphans, adopt_orphans, ending_orphans

adopt_orphans()
run = threading.Thread(target=subprocess.run, args=(("sh", "-c", "sleep 0.1 &"),))
run.start()
run.join()
(orphan,) = _orphans()
while ") Z " not in Path(f"/proc/{orphan}/stat").read_text():
    time.sleep(0.01)
with ending_orphans():
    pass
print(_orphans())
"""
    assert _told(program) == "{}\n"


def test_programs_are_waited_for_with_what_they_leave() -> None:
    """Who waits for programs also waits until what they left behind has been ended; not for longer than asked."""
    program = """
import threading
from aca_tokend import process

ending, go_on = threading.Event(), threading.Event()
def end_orphans(began, left):
    ending.set()
    go_on.wait()
    print("ended")
    return []
process._end_orphans = end_orphans
def run():
    with process.ending_orphans():
        pass
thread = threading.Thread(target=run)
thread.start()
ending.wait()
process.wait_for_programs(0.0)
threading.Timer(0.1, go_on.set).start()
process.wait_for_programs(60.0)
print("waited", bool(process._running or process._ending))
"""
    assert _told(program) == "ended\nwaited False\n"
