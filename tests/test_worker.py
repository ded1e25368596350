"""The worker: real runs on the embedded model in processes of their own; killed, stopped, resumed, asked."""

import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from studio import assets
from studio.catalog.run import Run
from studio.errors import StudioError
from studio.queue.jobs import Job, Jobs
from studio.queue.supervisor import Supervisor
from studio.records import runs
from studio.same_subject.config import NoPrior
from studio.settings.run import Loop, Preview
from studio.worker import live
from studio.worker.worker import Worker
from trainers.dreambooth.config import DreamBooth

LIMIT = 240.0
pytestmark = pytest.mark.timeout(600)


def settings(folder: Path, name: str, steps: int, **loop) -> dict:
    method = DreamBooth(data=str(assets.path("samples/unicorn")), token="sks", prior=NoPrior())
    preview = Preview(every=0)
    loop = Loop(steps=steps, batch_size=1, log_every=1, checkpoint_every=0, **loop)
    return Run(method=method, name=name, output=str(folder / "runs"), loop=loop, preview=preview).to_dict()


def request(**values) -> dict:
    return {"request": {"prompt": ["a sticker of a star"], "steps": 2, "grid": False, **values}}


def told(jobs: Jobs, job: Job) -> str:
    log = jobs.log(job.id)
    return f"{job.state} {job.error}\n{log.read_text() if log.exists() else 'no log yet'}"


def until(jobs: Jobs, job: int, test) -> Job:
    end = time.monotonic() + LIMIT
    while not test(found := jobs.get(job)):
        assert found.is_open, told(jobs, found)
        assert time.monotonic() < end, told(jobs, found)
        time.sleep(0.2)
    return found


def losses(folder: Path) -> list[float]:
    return [event["loss"] for event in runs.RunFolder(folder).read_events("step")]


@pytest.fixture
def jobs(tmp_path: Path) -> Jobs:
    return Jobs(tmp_path / "jobs")


@pytest.fixture
def supervised(jobs: Jobs, tmp_path: Path) -> Iterator[Jobs]:
    supervisor = Supervisor(jobs, cwd=tmp_path)
    yield jobs
    supervisor.close()
    for job in jobs.running():
        psutil.Process(job.pid).kill()


@pytest.fixture
def worker(jobs: Jobs) -> Iterator[Worker]:
    before = signal.getsignal(signal.SIGTERM)
    yield Worker(jobs, "cpu")
    signal.signal(signal.SIGTERM, before)


def test_a_killed_worker_fails_its_job_and_the_run_can_be_resumed(supervised: Jobs, tmp_path: Path):
    payload = settings(tmp_path, "killed", 100_000)
    payload["loop"]["checkpoint_every"] = 2
    job = supervised.add("train", payload, title="killed")
    run = tmp_path / "runs" / "killed"
    until(supervised, job, lambda j: any(run.glob("checkpoints/step-*4")))
    os.kill(supervised.get(job).pid, signal.SIGKILL)
    failed = until(supervised, job, lambda j: not j.is_open)
    assert failed.state == "failed"
    assert "resume the run" in failed.error
    assert runs.RunFolder(run).status() == "failed"

    kept = max(int(path.name[5:]) for path in run.glob("checkpoints/step-*"))
    again = supervised.add("resume", {"run": str(run)}, title="killed", run=str(run))
    until(supervised, again, lambda j: j.progress > 0)
    supervised.stop(again)
    stopped = until(supervised, again, lambda j: not j.is_open)
    assert stopped.state == "stopped", stopped.error
    steps = [event["step"] for event in runs.RunFolder(run).read_events("step")]
    assert steps == list(range(1, len(steps) + 1))
    assert any(run.glob(f"checkpoints/step-{steps[-1]:08d}"))
    assert steps[-1] > kept


def test_a_running_job_draws_from_its_live_weights_and_trains_on_as_if_nobody_asked(
    worker: Worker, jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(live, "LOOK", 0.0)  # four steps may be over before it would look again
    quiet = jobs.add("train", settings(tmp_path, "quiet", 4), title="quiet")
    worker.do(jobs.claim("cpu", jobs.get(quiet).process) or jobs.get(quiet))
    assert jobs.get(quiet).state == "done", jobs.get(quiet).error

    asked = jobs.add("train", settings(tmp_path, "asked", 4), title="asked")
    claimed = jobs.claim("cpu", jobs.get(quiet).process)
    assert claimed is not None
    questions = [jobs.ask(asked, request(seed=seed)) for seed in (0, 1)]
    wrong = jobs.ask(asked, request(edits=["decor"]))
    worker.do(claimed)
    answers = [jobs.get_ask(each) for each in questions]
    assert [each.state for each in answers] == ["done", "done"], answers
    assert all(Path(each.result["pictures"][0]).is_file() for each in answers)
    assert jobs.get_ask(wrong).state == "failed"
    assert losses(tmp_path / "runs" / "quiet") == losses(tmp_path / "runs" / "asked")
    assert jobs.get(asked).run == str(tmp_path / "runs" / "asked")


def test_short_jobs_draw_compare_plan_export_and_caption(worker: Worker, jobs: Jobs, tmp_path: Path):
    me = jobs.get(jobs.add("sample", request(output=str(tmp_path / "out")), title="")).process

    def done(kind, payload) -> dict:
        job = jobs.add(kind, payload, title=kind)
        while (claimed := jobs.claim("cpu", me)) is not None:
            worker.do(claimed)
        assert jobs.get(job).state == "done", jobs.get(job).error
        return dict(jobs.get(job).result)

    run = done("train", settings(tmp_path, "short", 2))["run"]
    assert (Path(run) / "report.html").is_file()
    drawn = done("sample", request(artifact=[run], output=str(tmp_path / "out")))
    assert [Path(path).suffix for path in drawn["pictures"]] == [".png"]
    two = {"x": {"axis": "strength", "values": ["0", "1"]}, "y": {"axis": "seed", "values": ["0", "1"]}}
    grid = done("grid", request(artifact=[run]) | two)
    assert Path(grid["sheet"]).is_file()
    assert [len(row) for row in grid["cells"]] == [2, 2]
    steps = {"x": {"axis": "checkpoint", "values": ["2"]}, "y": {"axis": "", "values": []}}
    assert len(done("grid", request(artifact=[run]) | steps)["cells"]) == 1
    assert done("plan", {"run": settings(tmp_path, "planned", 2), "gpu": 0})["fits"]
    assert done("export", {"run": run, "export": {"formats": ["kohya"]}})["files"]
    photos = tmp_path / "photos"
    photos.mkdir()
    shutil.copy(drawn["pictures"][0], photos / "one.png")
    ((name, text),) = done("caption", {"folder": str(photos), "settings": {"prefix": "sks"}})["captions"]
    assert name == str(photos / "one.txt")
    assert text.startswith("sks ")


def test_wrong_settings_fail_the_job_with_their_sentence(worker: Worker, jobs: Jobs, tmp_path: Path):
    payload = settings(tmp_path, "wrong", 2)
    payload["hardware"]["num_processes"] = 2
    payload["loop"]["batch_size"] = 2
    job = jobs.add("train", payload, title="wrong")
    claimed = jobs.claim("cpu", jobs.get(job).process)
    assert claimed is not None
    worker.do(claimed)
    assert "A job of the app runs in one process" in jobs.get(job).error
    assert jobs.get(job).error in jobs.log(job).read_text()


def test_a_grid_of_wrong_axes_is_refused():
    from studio.sampling.grid import axes

    with pytest.raises(StudioError, match="Both axes are 'seed'"):
        axes({"x": {"axis": "seed", "values": ["1"]}, "y": {"axis": "seed", "values": ["2"]}})
    with pytest.raises(StudioError, match="Unknown axis 'sede'; did you mean 'seed'"):
        axes({"x": {"axis": "sede", "values": ["1"]}, "y": {"axis": "", "values": []}})
    ten = [str(i) for i in range(10)]
    with pytest.raises(StudioError, match="100 cells; 64 are allowed"):
        axes({"x": {"axis": "seed", "values": ten}, "y": {"axis": "steps", "values": ten}})
