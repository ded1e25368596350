"""Shows that resuming is exact: N steps straight against k, resume, and N - k."""

import dataclasses
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file

from studio.catalog.run import Run
from studio.records.runs import RunFolder
from studio.training import checkpoint
from studio.training.session import Session
from studio.training.train import resume, run_to_end, train


def verify_resume(run: Run, *, steps: int, at: int) -> list[str]:
    """Names of the tensors that differ between a straight run and an interrupted one; empty if it is exact.

    Compares weights, optimizer, average and the method's own state, bit for bit, in a temporary folder.
    """
    loop = dataclasses.replace(run.loop, steps=steps, checkpoint_every=0)
    preview = dataclasses.replace(run.preview, every=0)
    with tempfile.TemporaryDirectory() as root:
        plain = dataclasses.replace(run, output=root, loop=loop, preview=preview, trackers=())
        straight = run_to_end(dataclasses.replace(plain, name="straight"))
        interrupt(dataclasses.replace(plain, name="halves"), at)
        list(resume(Path(root) / "halves"))
        return differing_tensors(straight, RunFolder(Path(root) / "halves"))


def interrupt(run: Run, at: int) -> None:
    """Train a new run up to a step, where a person stops it."""
    done = 0

    def look(session: Session) -> None:
        nonlocal done
        done = session.step

    for _ in train(run, stop=lambda: done >= at, between=look):
        pass


def differing_tensors(one: RunFolder, two: RunFolder) -> list[str]:
    """Names of what differs in the newest checkpoints of two runs: weights, optimizer, average, the method's state."""
    differing: list[str] = []
    for name in ("weights", "state"):
        paths = [checkpoint.latest(f.checkpoints) for f in (one, two)]
        left, right = (load_file(p / f"{name}.safetensors") if p else {} for p in paths)
        differing += sorted(left.keys() ^ right.keys())
        differing += [k for k in left.keys() & right.keys() if not torch.equal(left[k], right[k])]
    return differing
