"""`studio train METHOD ...` and `studio train --resume RUN`. Torch is imported once the settings are right."""

import dataclasses
import json
import logging
import os
import shlex
import signal
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import yaml

from studio.catalog import methods
from studio.catalog.checks import check, refuse_changes
from studio.catalog.presets import FOLLOWED, Start
from studio.catalog.run import Run
from studio.commands import process
from studio.console import Console
from studio.errors import RunFailed, StudioError
from studio.flags import flags, names, origins
from studio.records import runs
from studio.settings import memory, serial

STICKERS = "stickers"
"""Data that evaluations take by themselves."""
PAUSE = 1.0
"""Seconds after its warning in which Ctrl-C stops nothing: a key held down is no decision."""


class StopRequest:
    """Turns Ctrl-C, SIGTERM and a closed terminal into "stop after this step, saved".

    A second Ctrl-C says what a further one would lose; one that comes later than `PAUSE` seconds after that stops at once.
    """

    def __init__(self, console: Console) -> None:
        self.asked, self._warned, self._console = False, 0.0, console
        self._parent = os.getppid() if "RANK" in os.environ else None
        signal.signal(signal.SIGINT, self._ask)
        process.on_end(self._ask)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        del frame
        now = time.monotonic()
        if not self.asked:
            self._console.print(
                "Stopping after this step, or as soon as what is being prepared can be left; what is trained is saved."
            )
        elif number == signal.SIGINT and not self._warned:
            self._warned = now
            self._console.print(
                "Still at this step, then everything is saved; Ctrl-C once more gives up what came after the last checkpoint."
            )
        elif number == signal.SIGINT and now - self._warned > PAUSE:
            raise KeyboardInterrupt
        self.asked = True

    def __call__(self) -> bool:
        """Whether stopping was asked for, or who launched this process of several is gone."""
        return self.asked or self._parent not in (None, os.getppid())


def train(argv: list[str], console: Console) -> None:
    """The command. Everything about the settings is refused before torch is imported."""
    own, rest = flags.take(argv, "resume", "gpu")
    allow, shows = "--allow-changes" in rest, "--print-config" in rest
    rest = [a for a in rest if a not in ("--allow-changes", "--print-config")]
    if {"resume", "gpu"} <= own.keys():
        raise StudioError(
            "--gpu is for new runs: a run keeps what was chosen for it; leave it out.", field="gpu"
        )
    if "resume" in own:
        _train_on(own["resume"], argv, rest, console, allow=allow, shows=shows)
        return
    method, rest = _method(rest)
    if "gpu" in own:
        rest = [*rest, *fitting(method, rest, own["gpu"], console)]
    if shows:
        run, start = flags.started(method, rest)
        _print_config(run, origins.of_new(run, start, rest), console, start)
        return
    run, start = flags.started(method, rest)
    check(run)
    if "RANK" not in os.environ:  # said once, by the process that launched the others
        tell(start, console)
    if run.hardware.num_processes > 1 and "RANK" not in os.environ:
        _launch_new(run, console)
        return
    from studio.backend.quiet import quiet
    from studio.training.train import train as begin

    quiet()
    _follow(begin(run, stop=StopRequest(console)), console)


def fitting(method: str, argv: Sequence[str], gpu: str, console: Console) -> list[str]:
    """The cheapest flags with which a run fits a GPU, counted on the simulated device; none if it fits as it is.

    Raises:
        StudioError: It does not fit with any, or the size is none.
    """
    size = gpu if gpu == "auto" else memory.gib(gpu, "gpu")
    run, _ = flags.started(method, argv)
    check(run)
    from studio.backend.peak import free_gib
    from studio.backend.quiet import quiet
    from studio.training.plan import counted

    quiet()
    found = counted(run, gpu=free_gib() if size == "auto" else float(size))
    if not found.fits and not found.flags:
        raise StudioError(f"{method} {found.advice}.", field="gpu")
    console.print(f"for this GPU: {' '.join(found.flags) or 'nothing has to change'} ({found.advice})")
    return found.flags


def _train_on(
    path: str, argv: list[str], rest: list[str], console: Console, *, allow: bool, shows: bool
) -> None:
    """Resume a run, with what flags change."""
    _, run = runs.open_run(path)
    wanted = flags.change_run(run, rest) if rest else run
    if shows:
        refuse_changes(run.to_dict(), wanted.to_dict(), allow)
        _print_config(wanted, origins.of_resumed(run, wanted, rest), console)
        return
    if _is_finished(path, wanted, console):
        return
    if wanted.hardware.num_processes > 1 and "RANK" not in os.environ:
        _launch(argv, wanted.hardware.num_processes, console)
        return
    _resume(path, wanted, allow, console)


def tell(start: Start, console: Console) -> None:
    """Say what a run takes that no flag says: its preset and why, what follows, and what to know of its model."""
    for line in start.choice.lines():
        console.print(line)
    if followed := start.layers.get(FOLLOWED):
        console.print(f"{FOLLOWED}: {', '.join(f'{names.flag(n)} {value}' for n, value in followed.items())}")


def _print_config(
    run: Run, settings: Sequence[origins.Setting], console: Console, start: Start | None = None
) -> None:
    """Every resolved setting, with where it comes from; nothing is checked against files, and nothing is trained."""
    found = {each.path: {"value": each.value, "from": each.origin} for each in settings}
    told = {"preset": dataclasses.asdict(start.choice)} if start else {}
    console.record({"event": "config", "config": run.to_dict(), "settings": found, **told})
    if console.json:
        return
    if start:
        tell(start, console)
    width = max(len(each.path) for each in settings)
    for each in settings:
        console.print(f"{each.path:<{width}}  {json.dumps(each.value):<24}  {each.origin}")


def _method(argv: list[str]) -> tuple[str, list[str]]:
    if argv and not argv[0].startswith("-"):
        return argv[0], argv[1:]
    own, _ = flags.take(argv, "config")
    named = serial.read_file(Path(own["config"])).get("method", {}) if "config" in own else {}
    if isinstance(named, dict) and named.get("kind"):
        return str(named["kind"]), argv
    listed = ", ".join(methods.list_methods())
    raise StudioError(f"studio train needs the name of a method; choose one of: {listed}.", field="method")


def _is_finished(path: str, wanted: Run, console: Console) -> bool:
    """Whether nothing is left to train; says then how to go on."""
    folder, run = runs.open_run(path)
    total = wanted.loop.steps
    done = max((event["step"] for event in folder.read_events("done")), default=-1)
    if done < run.loop.steps or total != run.loop.steps or wanted.loop.epochs != run.loop.epochs:
        return False
    console.print(f"{folder.path} is finished: {done} of {total} steps; its files are in {folder.export}.")
    length = f"--loop.epochs {2 * run.loop.epochs}" if run.loop.epochs else f"--loop.steps {2 * done}"
    console.print(f"train on: studio train --resume {path} {length}")
    return True


def _resume(path: str, wanted: Run, allow: bool, console: Console) -> None:
    from studio.backend.quiet import quiet
    from studio.training.train import resume

    quiet()
    events = resume(path, wanted.to_dict(), allow_changes=allow, stop=StopRequest(console))
    _follow(events, console)


def _follow(events: Iterator[dict[str, Any]], console: Console) -> None:
    folder = ""
    try:
        for event in events:
            folder = event.get("folder", "") if event["event"] == "start" else folder
            console.event(event)
    except KeyboardInterrupt:
        kept = max(runs.saved(runs.RunFolder(Path(folder)).checkpoints), default=0) if folder else 0
        if kept:
            console.print(f"What came after step {kept} is given up; go on: studio train --resume {folder}")
        raise
    finally:
        console.close()
    if folder and "RANK" not in os.environ:
        finish(folder, console)
    elif not folder:
        console.print("Stopped before the first step; nothing was trained.")


def finish(folder: str, console: Console) -> None:
    """Write the run's page, and say what can be done next."""
    from studio.reports.html import write
    from studio.reports.report import from_run

    found = runs.RunFolder(Path(folder))
    console.print(f"report: {write(from_run(found), found.path / 'report.html')}")
    if found.status() == "stopped":
        console.print(f"go on: studio train --resume {folder}")
    elif found.status() == "done":
        for line in _next(found):
            console.print(line)


def _next(folder: runs.RunFolder) -> list[str]:
    """What can be done with a finished run."""
    _, run = runs.open_run(folder.path)
    offers, path = methods.card_of(run.method).offers, shlex.quote(str(folder.path))
    lines: list[str] = []
    data = run.to_dict()["method"].get("data", "")
    train = data.get("train", STICKERS) if isinstance(data, dict) else STICKERS
    known = f" --data.train {shlex.quote(train)}" if train != STICKERS else ""
    if "text-to-image" in offers and "control" not in offers:
        prompts = [p for event in folder.read_events("preview") for p in event["prompts"]] or ["PROMPT"]
        reference = " --reference PICTURE" if {"reference", "references"} & set(offers) else ""
        lines.append(f"draw: studio sample --artifact {path}{reference} --prompt {shlex.quote(prompts[0])}")
    if "subject" in offers and "reference" not in offers:
        lines.append(f"judge: studio eval subject --artifact {path} --data PICTURES-NOT-TRAINED-ON")
    if "retrieval" in offers:
        lines.append(f"judge: studio eval vlm --model {path}{known}")
    elif "classification" in offers:
        lines.append(f"judge: studio eval robustness --model {path}{known}")
    if "captions" in offers:
        lines.append(f"use: studio data caption DIR --model {path}")
    return lines


def _launch_new(run: Run, console: Console) -> None:
    """Train in several processes, all on the same settings file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.yaml"
        path.write_text(yaml.safe_dump(run.to_dict()), encoding="utf-8")
        _launch(["--config", str(path)], run.hardware.num_processes, console)


def _launch(arguments: list[str], num_processes: int, console: Console) -> None:
    """`studio train` once for each process, through torch's launcher."""
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.getLogger("torch.distributed.elastic").setLevel(
        logging.CRITICAL
    )  # our own last line says what matters
    settings = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=num_processes,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
    )
    command = ["-m", "studio.cli", "train", *arguments, *(["--json"] if console.json else [])]
    try:
        elastic_launch(settings, sys.executable)(*command)
    except SignalException:
        console.print("Stopped; what was trained is saved.")
    except ChildFailedError as failed:
        rank, failure = failed.get_first_failure()
        text = f"Process {rank} of the run ended with code {failure.exitcode}; its message is above."
        raise (StudioError if failure.exitcode == 2 else RunFailed)(text) from None
