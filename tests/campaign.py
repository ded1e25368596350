"""Kills, damages, full disks and other people's files, at length: `python -m tests.campaign` writes `docs/campaign.md`.

    python -m tests.campaign [--kills 300] [--disks 24] [--inputs 100000] [--damages 1] [--seed 0]

Runs of the toy method are killed at random moments, resumed, and compared bit for bit with the run that nothing stopped. A part of
size 0 is left out; its cell stays as it was found last (`campaign.json`). The command ends with 1 where anything was lost, hung or ended
in a traceback.
"""

import argparse
import importlib
import json
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import load_file

from studio.catalog.run import Run
from studio.errors import StudioError
from studio.records import runs
from studio.records.runs import RunFolder
from studio.settings.run import Hardware, Loop, Optim, Preview
from studio.training import checkpoint
from studio.training.train import resume, run_to_end, train
from tests import fuzz, tree
from tests.damages import KINDS
from tests.toy.config import Toy

FILE = Path(__file__).with_name("campaign.json")
PAGE = tree.ROOT / "docs" / "campaign.md"
STEPS = 40
OPTIMIZERS = {
    "adamw, average of weights": Optim(lr=0.05, ema=0.9, schedule="cosine", warmup=3),
    "sgd": Optim(lr=0.05, name="sgd", options={"momentum": 0.9}),
    "schedule-free": Optim(lr=0.05, name="schedule-free"),
    "prodigy": Optim(lr=1.0, name="prodigy"),
}
LIBRARIES = (
    "diffusers.optimization",
    "schedulefree",
    "prodigyopt",
    "studio.metrics.build",
    "tests.toy.trainer",
)
"""What children would import each for itself."""
Cells = dict[str, dict[str, str]]


def made(root: Path, name: str, optim: Optim) -> Run:
    """A run that saves, draws and validates often."""
    loop = Loop(steps=STEPS, batch_size=8, log_every=1, checkpoint_every=3, validate_every=10)
    here = Hardware(device="cpu", threads=1)
    settings = Toy(dropout=0.3)
    return Run(method=settings, output=str(root), name=name, loop=loop, optim=optim, hardware=here, preview=Preview(every=8), trackers=())  # fmt: skip


def forked(work: Callable[[], object], *, after: float | None = None) -> str:
    """Do work in a child process, killed after so many seconds; gives how it ended: `done`, `killed`, or what went wrong."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.close(reader)
        said = _said(work)
        os.write(writer, said.encode()[:4000])
        os._exit(0)
    os.close(writer)
    if after is not None:
        time.sleep(after)
        os.kill(child, signal.SIGKILL)
    with os.fdopen(reader, encoding="utf-8") as told:
        text = told.read()
    os.waitpid(child, 0)
    return text or "killed"


def _said(work: Callable[[], object]) -> str:
    try:
        work()
    except StudioError as error:
        return f"refused: {error}"
    except BaseException:
        return f"traceback: {traceback.format_exc()}"
    return "done"


def weights(folder: RunFolder) -> dict[str, torch.Tensor]:
    """All tensors of the newest checkpoint."""
    path = checkpoint.newest(folder.checkpoints)
    return {**load_file(path / "weights.safetensors"), **load_file(path / "state.safetensors")}


def lost(folder: RunFolder, straight: RunFolder) -> str:
    """What differs from the run that nothing stopped; empty if nothing does."""
    one, two = weights(folder), weights(straight)
    if one.keys() != two.keys() or not all(torch.equal(one[key], two[key]) for key in one):
        return "other bits"
    steps = [event["step"] for event in folder.read_events("step")]
    return "" if steps == list(range(1, STEPS + 1)) else f"steps of the record are {steps}"


def again(folder: RunFolder, run: Run) -> Callable[[], object]:
    """Go on with a run, or begin it where it had not begun."""
    return lambda: list(resume(folder.path) if folder.config.exists() else train(run))


def kills(root: Path, count: int, chance: random.Random) -> tuple[dict[str, str], list[str]]:
    """Kill runs at random moments until so many kills are done."""
    cells, faults = dict[str, str](), list[str]()
    for share, (name, optim) in enumerate(OPTIMIZERS.items()):
        start = time.perf_counter()
        said = forked(lambda o=optim: run_to_end(made(root, "straight", o)))
        took, straight, done, trials = time.perf_counter() - start, RunFolder(root / "straight"), 0, 0
        wanted = count // len(OPTIMIZERS) + (share < count % len(OPTIMIZERS))
        while done < wanted and said == "done":
            folder, run = RunFolder(root / f"killed{trials}"), made(root, f"killed{trials}", optim)
            for _ in range(min(chance.randint(1, 5), wanted - done)):
                done += forked(again(folder, run), after=chance.uniform(0, took)) == "killed"
            said = forked(again(folder, run))
            found = said if said != "done" else lost(folder, straight)
            faults += [f"kills, {name}: {found}"] if found else []
            trials, said = trials + 1, "done"
            shutil.rmtree(folder.path)
        shutil.rmtree(straight.path, ignore_errors=True)
        cells[name] = (
            f"{done} kills in {trials} runs, {sum(f'kills, {name}:' in each for each in faults)} with a difference"
        )
    return cells, faults


def damages(root: Path, chance: random.Random) -> tuple[dict[str, str], list[str]]:
    """Damage the newest checkpoint in every kind, go on, and compare."""
    optim = OPTIMIZERS["adamw, average of weights"]
    straight, faults = run_to_end(made(root, "straight", optim)), list[str]()
    for kind, damage in KINDS.items():
        folder = RunFolder(Path(shutil.copytree(straight.path, root / "damaged")))
        at = chance.choice(list(runs.saved(folder.checkpoints)))
        newest = folder.checkpoints / f"step-{STEPS:08d}"
        damage(newest)
        noticed = bool(checkpoint.damage(newest))
        said = forked(lambda folder=folder: list(resume(folder.path)))
        found = said if said != "done" else lost(folder, straight)
        faults += [f"damage, {kind}: {found or 'not noticed'} ({at})"] if found or not noticed else []
        shutil.rmtree(folder.path)
    return {"kinds": f"{len(KINDS)}, {len(faults)} with a difference"}, faults


@contextmanager
def disk(root: Path, size: int):  # a generator for a context
    """A file system of so many bytes; gives its folder and what makes it large."""
    place = root / "disk"
    place.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place], check=True)
    try:
        yield place, lambda: subprocess.run(["mount", "-o", "remount,size=64m", place], check=True)
    finally:
        subprocess.run(["umount", place], check=True)


def disks(root: Path, count: int) -> tuple[dict[str, str], list[str]]:
    """Train on disks that fill up, each a little later; then with room, and compare."""
    optim, faults, ends = OPTIMIZERS["adamw, average of weights"], list[str](), dict[str, int]()
    straight = run_to_end(made(root, "straight", optim))
    for number in range(count):
        with disk(root, 4096 * (6 + 4 * number)) as (place, grow):
            folder, run = RunFolder(place / "full"), made(place, "full", optim)
            said = forked(lambda run=run: list(train(run)))
            ends[said.partition(":")[0]] = ends.get(said.partition(":")[0], 0) + 1
            grow()
            after = forked(again(folder, run))
            found = (
                said if said.startswith("traceback") else after if after != "done" else lost(folder, straight)
            )
            faults += [f"disk of {4096 * (6 + 4 * number)} bytes: {found}"] if found else []
    return {
        "disks": f"{count} ({', '.join(f'{n} {k}' for k, n in sorted(ends.items()))}), {len(faults)} with a difference afterwards"
    }, faults


def inputs(root: Path, count: int, seed: int) -> tuple[dict[str, str], list[str]]:
    """Read changed files of others."""
    found, faults = fuzz.run(root, count, seed)
    return {name: f"{counts['read']:,} read, {counts['refused']:,} refused, {counts['traceback']} tracebacks, {counts['hang']} hangs" for name, counts in found.items()}, faults  # fmt: skip


def render(cells: Cells) -> str:
    """The page."""
    lines = [
        "# Kills, damages, full disks, other people's files",
        "",
        "Made by `python -m tests.campaign`: a small method that saves every three steps, draws and validates is killed at random moments",
        "(SIGKILL), its newest checkpoint is damaged, its disk (a real file system of that size) fills up; each run then goes on, and all of its",
        "weights, optimizer and record are compared bit for bit with the run that nothing stopped. Files of others are changed at random.",
    ]
    for part, found in cells.items():
        lines += ["", f"## {part}", "", "| what | found |", "| --- | --- |"]
        lines += [f"| {name} | {text} |" for name, text in found.items()]
    return "\n".join(lines) + "\n"


def main(arguments: list[str]) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.campaign")
    for name, size in {"kills": 300, "disks": 24, "inputs": 100_000, "damages": 1, "seed": 0}.items():
        parser.add_argument(f"--{name}", type=int, default=size)
    asked = parser.parse_args(arguments)
    logging.disable(logging.CRITICAL)
    torch.set_num_threads(1)
    for name in LIBRARIES:
        importlib.import_module(name)
    cells: Cells = json.loads(FILE.read_text(encoding="utf-8")) if FILE.is_file() else {}
    faults: list[str] = []
    parts: dict[str, tuple[int, Callable[[Path], tuple[dict[str, str], list[str]]]]] = {
        "Kills": (asked.kills, lambda root: kills(root, asked.kills, random.Random(asked.seed))),
        "Damaged checkpoints": (asked.damages, lambda root: damages(root, random.Random(asked.seed))),
        "Full disks": (asked.disks, lambda root: disks(root, asked.disks)),
        "Files of others": (asked.inputs, lambda root: inputs(root, asked.inputs, asked.seed)),
    }
    for part, (size, work) in parts.items():
        if size:
            with tempfile.TemporaryDirectory() as root:
                cells[part], found = work(Path(root))
            faults += found
            FILE.write_text(json.dumps(cells, indent=1) + "\n", encoding="utf-8")
            PAGE.write_text(render(cells), encoding="utf-8")
    print("\n".join([*faults, f"{len(faults)} faults"]))
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
