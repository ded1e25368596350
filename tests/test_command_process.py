"""How the command's process begins and ends."""

import gc
import subprocess
import sys

import pytest

from studio.commands import process


def ended(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("imported", ["torch", "json"])
def test_leaving_runs_exit_handlers_flushes_and_gives_the_code(imported: str):
    found = ended(
        f"import atexit, {imported}, sys; from studio.commands import process\n"
        "atexit.register(lambda: sys.stdout.write('handled '))\n"
        "sys.stdout.write('printed '); process.leave(3)\n"
    )
    assert (found.returncode, found.stdout, found.stderr) == (3, "printed handled ", "")


def test_leaving_does_not_take_torch_apart():
    code = (
        "import torch; from studio.commands import process\n"
        "class Last:\n"
        "    def __del__(self): print('taken apart')\n"
        "torch.last = Last(); {}\n"
    )
    assert ended(code.format("")).stdout == "taken apart\n"
    assert ended(code.format("process.leave(0)")).stdout == ""


def test_a_thread_at_work_is_waited_for():
    found = ended(
        "import threading, time, torch; from studio.commands import process\n"
        "threading.Thread(target=lambda: (time.sleep(0.5), print('worked'))).start(); process.leave(1)\n"
    )
    assert (found.returncode, found.stdout) == (1, "worked\n")


def test_the_first_search_for_garbage_comes_late_and_the_next_sooner():
    usual = gc.get_threshold()
    try:
        process.begin()
        assert gc.get_threshold()[0] == process.FIRST_OBJECTS
        gc.collect()
        assert gc.get_threshold()[0] == process.NEW_OBJECTS
        gc.collect()
        assert gc.get_threshold()[0] == process.NEW_OBJECTS
    finally:
        gc.set_threshold(*usual)
