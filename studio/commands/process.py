"""How the command's process begins and ends: both in a hurry, as torch and diffusers are millions of objects."""

import atexit
import contextlib
import gc
import os
import sys
import threading
from typing import Any

NEW_OBJECTS = 10_000
"""Garbage is looked for after so many new objects."""
FIRST_OBJECTS = 1_000_000
"""And for the first time after so many: importing torch and diffusers makes nearly as many and leaves little garbage,
and looking for it meanwhile, after every 700 as Python does, takes a sixth of the time."""


def begin() -> None:
    """Do not look for garbage while libraries are imported, and seldom afterwards."""
    gc.set_threshold(FIRST_OBJECTS)
    gc.callbacks.append(_begun)


def _begun(phase: str, info: dict[str, Any]) -> None:
    del phase, info
    gc.set_threshold(NEW_OBJECTS)
    gc.callbacks.remove(_begun)


def leave(code: int) -> None:
    """End the process with an exit code, without taking torch apart, which alone takes two seconds.

    Exit handlers run and what was printed is flushed. Where other threads are still at work, or torch was never
    imported, Python ends as it always does.
    """
    busy = [thread for thread in threading.enumerate() if not thread.daemon]
    if busy != [threading.main_thread()] or "torch" not in sys.modules:
        sys.exit(code)
    atexit._run_exitfuncs()  # pyright: ignore[reportPrivateUsage, reportAttributeAccessIssue]
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(BrokenPipeError):
            stream.flush()
    os._exit(code)
