"""The queue: order, moving, stopping, claims, questions, and what happens to jobs whose worker is gone."""

import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from studio.errors import StudioError
from studio.queue import supervisor
from studio.queue.jobs import Jobs, Unusable
from studio.records.processes import Process, alive, me, started
from studio.records.runs import RunFolder
from studio.worker import worker

GONE = Process(pid=2**22 - 3, started=1.0)


@pytest.fixture
def jobs(tmp_path: Path) -> Jobs:
    return Jobs(tmp_path / "jobs")


def add(jobs: Jobs, kind="train", title="a run", **values) -> int:
    return jobs.add(kind, {"x": 1}, title=title, **values)


def test_a_job_waits_with_what_it_was_given(jobs: Jobs):
    job = jobs.get(add(jobs, title="unicorn"))
    assert (job.state, job.title, job.payload, job.is_open) == ("queued", "unicorn", {"x": 1}, True)


def test_short_jobs_go_before_long_ones(jobs: Jobs):
    long, short = add(jobs), add(jobs, "sample")
    assert [job.id for job in jobs.queue()] == [short, long]


def test_a_waiting_job_can_change_places(jobs: Jobs):
    first, second = add(jobs), add(jobs)
    jobs.move(second, up=True)
    assert [job.id for job in jobs.queue()] == [second, first]


def test_a_job_that_does_not_wait_cannot_be_moved(jobs: Jobs):
    job = add(jobs)
    jobs.stop(job)
    with pytest.raises(StudioError, match="does not wait any more"):
        jobs.move(job, up=True)


def test_stopping_a_waiting_job_cancels_it(jobs: Jobs):
    job = add(jobs)
    jobs.stop(job)
    assert jobs.get(job).state == "canceled"


def test_stopping_a_running_job_asks_its_worker(jobs: Jobs):
    job = add(jobs)
    jobs.claim("cpu", me())
    assert not jobs.beat(job)
    jobs.stop(job)
    assert jobs.beat(job)


def test_a_job_is_claimed_once_and_only_for_its_device(jobs: Jobs):
    job = add(jobs, device="cuda:1")
    assert jobs.claim("cpu", me()) is None
    claimed = jobs.claim("cuda:1", me())
    assert claimed is not None
    assert (claimed.id, claimed.state, claimed.process) == (job, "running", me())
    assert jobs.claim("cuda:1", me()) is None


def test_a_warm_worker_leaves_long_jobs_alone(jobs: Jobs):
    add(jobs)
    assert jobs.claim("cpu", me(), kinds=("sample",)) is None


def test_an_unknown_job_is_refused(jobs: Jobs):
    with pytest.raises(StudioError, match="There is no job 7"):
        jobs.get(7)


def test_a_question_is_answered_once(jobs: Jobs):
    job = add(jobs)
    jobs.claim("cpu", me())
    ask = jobs.ask(job, {"request": {}})
    found = jobs.asked(job)
    assert found is not None
    jobs.answer(found.id, result={"pictures": ["a.png"]})
    assert jobs.asked(job) is None
    assert jobs.get_ask(ask).result == {"pictures": ["a.png"]}


def test_only_running_jobs_can_be_asked(jobs: Jobs):
    with pytest.raises(StudioError, match="does not run any more"):
        jobs.ask(add(jobs), {})


def test_questions_fail_with_the_job_that_did_not_answer(jobs: Jobs):
    job = add(jobs)
    jobs.claim("cpu", me())
    ask = jobs.ask(job, {})
    jobs.finish(job, "done")
    assert jobs.get_ask(ask).state == "failed"


def test_a_process_is_known_by_number_and_start():
    here = me()
    assert alive(here)
    assert not alive(Process(pid=here.pid, started=here.started - 100))
    assert not alive(GONE)


def test_a_job_whose_worker_is_gone_has_failed_and_its_run_says_so(jobs: Jobs, tmp_path: Path):
    folder = RunFolder(tmp_path / "runs" / "a")
    (folder.checkpoints / "step-00000002").mkdir(parents=True)
    folder.events.write_text('{"event": "start", "step": 0}\n{"event": "step", "step": 2}\n{"event": "st')
    job = add(jobs, run=str(folder.path))
    jobs.claim("cpu", GONE)
    assert [each.id for each in supervisor.reconcile(jobs)] == [job]
    assert "resume the run to go on" in jobs.get(job).error
    assert (folder.status(), list(folder.read_events())[-1]["step"]) == ("failed", 2)


def test_a_job_whose_worker_lives_is_left_alone(jobs: Jobs):
    job = add(jobs)
    jobs.claim("cpu", me())
    assert supervisor.reconcile(jobs) == []
    assert jobs.get(job).state == "running"


def test_a_clock_that_jumps_makes_no_living_worker_lost(jobs: Jobs, monkeypatch: pytest.MonkeyPatch):
    job = add(jobs)
    jobs.claim("cpu", me())
    monkeypatch.setattr(psutil, "boot_time", lambda: 1e9)
    monkeypatch.setattr(psutil._pslinux, "boot_time", lambda: 1e9)  # what start times are counted from
    assert supervisor.reconcile(jobs) == []
    assert jobs.get(job).state == "running"


def test_killing_ends_the_process_of_a_job(jobs: Jobs):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    job = add(jobs)
    jobs.claim("cpu", Process(pid=child.pid, started=started(child.pid)))
    supervisor.kill(jobs, job)
    assert child.wait(10) == -9
    assert [each.id for each in supervisor.reconcile(jobs)] == [job]


def test_two_processes_never_get_the_same_job(jobs: Jobs):
    code = (
        "import sys; from studio.queue.jobs import Jobs; from studio.records.processes import me\n"
        "jobs = Jobs(sys.argv[1])\n"
        "while job := jobs.claim('cpu', me()): print(job.id)"
    )
    wanted = [add(jobs) for _ in range(20)]
    children = [
        subprocess.Popen([sys.executable, "-c", code, str(jobs.root)], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    taken = [int(line) for child in children for line in child.communicate(timeout=60)[0].split()]
    assert sorted(taken) == wanted


def test_jobs_stay_when_the_file_is_opened_again(jobs: Jobs):
    job = add(jobs)
    assert Jobs(jobs.root).get(job).made == pytest.approx(time.time(), abs=60)


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StudioError, match="choose a writable --root"):
        Jobs(tmp_path / "file" / "jobs")


def test_there_is_always_a_device(jobs: Jobs):
    assert supervisor.least_busy(jobs) in supervisor.devices()


def full_of(jobs: Jobs, count: int) -> list[int]:
    return [add(jobs) for _ in range(count)]


def test_more_than_200_waiting_jobs_hide_none(jobs: Jobs):
    made = full_of(jobs, 230)
    assert [job.id for job in jobs.queue()] == made
    jobs.move(made[1], up=True)
    assert jobs.claim("cpu", me()).id == made[1]


@pytest.mark.parametrize("damage", ["removed", "emptied", "overwritten", "table dropped"])
def test_a_queue_whose_file_is_lost_is_made_anew_with_every_job(
    damage: str, jobs: Jobs, caplog: pytest.LogCaptureFixture
):
    made = full_of(jobs, 3)
    jobs.claim("cpu", me())
    jobs.finish(made[0], "done")
    jobs.claim("cpu", me())
    before, file = jobs.all(), jobs.root / "jobs.sqlite"
    for journal in jobs.root.glob("jobs.sqlite-*"):
        journal.unlink()
    if damage == "removed":
        file.unlink()
    elif damage == "emptied":
        file.write_bytes(b"")
    elif damage == "overwritten":
        file.write_bytes(b"no database" * 500)
    else:
        with jobs.writing() as db:
            db.execute("drop table jobs")
    with pytest.raises(StudioError, match=r"queue in .* cannot be used"):
        jobs.queue()
    watching = supervisor.Supervisor.__new__(supervisor.Supervisor)
    watching._jobs = jobs
    with pytest.raises(Unusable) as caught:
        supervisor.tick(jobs, cwd=jobs.root)
    watching._repair(caught.value)
    assert jobs.all() == before
    assert "put back into the queue" in caplog.text


def test_a_queue_that_opens_damaged_is_made_anew(jobs: Jobs):
    made = full_of(jobs, 2)
    (jobs.root / "jobs.sqlite").write_bytes(b"no database" * 500)
    assert [job.id for job in Jobs(jobs.root).queue()] == made
    assert list(jobs.root.glob("jobs.sqlite.damaged-*"))


def test_the_supervisor_survives_whatever_a_look_raises(jobs: Jobs, monkeypatch: pytest.MonkeyPatch):
    looks: list[int] = []
    again = threading.Event()

    def tick(jobs: Jobs, *, cwd: Path) -> None:
        looks.append(1)
        if len(looks) < 3:
            raise Unusable(jobs.root, sqlite3.OperationalError("database is locked"))
        again.set()

    monkeypatch.setattr(supervisor, "tick", tick)
    monkeypatch.setattr(supervisor, "SECONDS", 0.01)
    watching = supervisor.Supervisor(jobs, cwd=jobs.root)
    assert again.wait(10)
    watching.close()


def test_a_locked_queue_ends_no_work(jobs: Jobs, monkeypatch: pytest.MonkeyPatch):
    def locked(*args: object, **kwargs: object) -> None:
        monkeypatch.undo()
        raise Unusable(jobs.root, sqlite3.OperationalError("database is locked"))

    job = jobs.get(add(jobs))
    doer = worker.Worker.__new__(worker.Worker)
    doer.jobs = jobs
    monkeypatch.setattr(worker, "AGAIN", (0.0, 0.0))
    monkeypatch.setattr(Jobs, "set", locked)
    doer._tell(job, progress=0.5)
    monkeypatch.setattr(worker, "AGAIN", (0.0, 0.0))
    monkeypatch.setattr(Jobs, "set", locked)
    doer._finish(job, "done")
    assert jobs.get(job.id).state == "done"
