"""One process at a time in a run folder; what a dead one left gives way."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from studio.errors import StudioError
from studio.records import lock
from studio.records.lock import Lock, Taken
from studio.records.processes import me
from studio.training.train import resume, run_to_end, train
from tests.test_loop import make_run

HOLD = "import sys, time; from pathlib import Path; from studio.records.lock import Lock; held = Lock(Path(sys.argv[1])); print('held', flush=True); time.sleep(60)"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "BEAT", 0.05)
    monkeypatch.setattr(lock, "WATCH", 0.4)
    monkeypatch.setattr(lock, "SETTLE", 0.05)


@pytest.fixture
def other(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def left(folder: Path, **changes: object) -> None:
    """What a process left behind, or seems to hold."""
    here = me()
    told = {"host": socket.gethostname(), "boot": lock._boot(), "pid": here.pid, "started": here.started}
    (folder / lock.NAME).write_text(json.dumps(told | {"locks": True, "token": "x", "count": 1} | changes))


def test_a_folder_at_work_in_another_process_is_refused_until_that_is_dead(
    tmp_path: Path, other: subprocess.Popen[str]
) -> None:
    with pytest.raises(StudioError, match=f"at work in process {other.pid} on {socket.gethostname()}"):
        Lock(tmp_path)
    other.kill()
    other.wait()
    assert (tmp_path / lock.NAME).exists()
    Lock(tmp_path).close()


def test_a_folder_is_free_again_and_holds_nothing_of_the_lock(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").touch()
    for _ in range(3):
        Lock(tmp_path).close()
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("text", ["", "null", "[]", "{", '{"pid": "x"}', "\0" * 512])
def test_a_damaged_lock_of_nobody_gives_way(text: str, tmp_path: Path) -> None:
    (tmp_path / lock.NAME).write_text(text)
    Lock(tmp_path).close()


def test_on_a_file_system_without_locks_the_process_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "_locked", lambda file: None)
    left(tmp_path, locks=False)
    with pytest.raises(StudioError, match=f"process {os.getpid()}"):
        Lock(tmp_path)
    left(tmp_path, locks=False, started=1.0)
    Lock(tmp_path).close()


def test_of_two_that_start_at_once_without_locks_one_holds_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "_locked", lambda file: None)
    monkeypatch.setattr(lock, "alive", lambda process: False)  # neither sees the other before both wrote
    barrier, found = threading.Barrier(4), []

    def start() -> None:
        barrier.wait()
        try:
            found.append(Lock(tmp_path))
        except StudioError:
            found.append(None)

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    held = [one for one in found if one]
    assert len(held) <= 1
    for one in held:
        one.close()


def test_of_another_machine_the_count_decides(tmp_path: Path) -> None:
    left(tmp_path, host="elsewhere")
    (tmp_path / "mine.txt").touch()
    Lock(tmp_path).close()  # nothing moved: dead
    left(tmp_path, host="elsewhere")
    counting = threading.Timer(0.1, lambda: left(tmp_path, host="elsewhere", count=2))
    counting.start()
    with pytest.raises(StudioError, match="on elsewhere"):
        Lock(tmp_path)
    counting.join()


def test_who_stood_still_while_another_took_over_writes_nothing_more(tmp_path: Path) -> None:
    events = train(make_run(tmp_path))
    for event in events:
        if event["event"] == "step" and event["step"] == 3:
            break
    folder = tmp_path / "toy"
    left(folder, host="elsewhere")
    record = (folder / "events.jsonl").read_bytes()
    time.sleep(0.3)
    with pytest.raises(Taken, match="taken over by another process"):
        list(events)
    assert (folder / "events.jsonl").read_bytes() == record
    assert not list((folder / "checkpoints").iterdir())
    assert (folder / lock.NAME).exists()


def test_a_run_at_work_is_neither_resumed_nor_begun_again(tmp_path: Path) -> None:
    run_to_end(make_run(tmp_path))
    config = (tmp_path / "toy" / "config.json").read_bytes()
    with closing(Lock(tmp_path / "toy")):
        for start in (
            lambda: train(make_run(tmp_path)),
            lambda: resume(tmp_path / "toy", {"loop": {"steps": 20}}),
        ):
            with pytest.raises(StudioError, match="at work in process"):
                list(start())
    assert (tmp_path / "toy" / "config.json").read_bytes() == config


def test_runs_without_a_name_that_start_in_one_second_get_a_folder_each(tmp_path: Path) -> None:
    runs = [train(make_run(tmp_path, name="")) for _ in range(4)]
    for events in runs:
        next(events)
    assert len({path.name for path in tmp_path.iterdir()}) == 4
    for events in runs:
        events.close()
    assert list(tmp_path.iterdir()) == []
