"""How the command's process begins and ends."""

import gc
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from studio.commands import process, training
from studio.commands.training import StopRequest
from studio.console import Console


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


PRINTS = (
    "import sys; from studio.commands import process; process.open_streams()\n"
    "from studio.console import Console; from pathlib import Path\n"
    "for i in range(2000): Console().print(f'\\u72ac {i}'); sys.stderr.write('told\\n')\n"
    "open(sys.argv[1], 'w').write('worked'); process.leave(0)\n"
)


@pytest.mark.parametrize("shell", ["| head -1", ">&-", "2>&-", ">&- 2>&- <&-", "> /dev/full", "2> /dev/full"])
@pytest.mark.parametrize("encoding", ["utf-8", "cp1252"])
def test_output_that_goes_nowhere_ends_no_work(shell: str, encoding: str, tmp_path: Path):
    code, end = tmp_path / "code.py", tmp_path / "end"
    code.write_text(PRINTS)
    root = Path(process.__file__).parents[2]
    command = f"PYTHONPATH={root} PYTHONIOENCODING={encoding} {sys.executable} {code} {end} {shell}; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert end.read_text() == "worked"
    assert "Error" not in done.stderr


@pytest.fixture
def stop() -> Iterator[StopRequest]:
    names = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(name) for name in names]
    yield StopRequest(Console())
    for name, handler in zip(names, before, strict=True):
        signal.signal(name, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_after_the_step_however_often_it_comes_at_once(stop: StopRequest, number: int):
    assert not stop()
    for _ in range(5):
        signal.raise_signal(number)
    assert stop()


def test_ctrl_c_after_a_warning_was_read_stops_at_once(
    stop: StopRequest, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    signal.raise_signal(signal.SIGINT)
    signal.raise_signal(signal.SIGINT)
    assert "Ctrl-C once more gives up what came after the last checkpoint" in capsys.readouterr().out
    monkeypatch.setattr(training, "PAUSE", -1.0)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_a_terminal_that_closes_does_not_stop_what_nohup_started():
    found = ended(
        "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "from studio.commands.training import StopRequest; from studio.console import Console\n"
        "stop = StopRequest(Console()); signal.raise_signal(signal.SIGHUP); print(stop())"
    )
    assert found.stdout == "False\n"


def test_a_process_whose_launcher_is_gone_stops(monkeypatch: pytest.MonkeyPatch, stop: StopRequest):
    monkeypatch.setenv("RANK", "1")
    launched = StopRequest(Console())
    assert not launched()
    monkeypatch.setattr(os, "getppid", lambda: 1)
    assert launched()
    assert not stop()
