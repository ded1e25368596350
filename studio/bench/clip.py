"""Times our contrastive training step against open_clip's own training loop: `python -m studio.bench.clip`.

Same tiny model, same batches in memory, AdamW, in one process. `open_clip_train` is a program and no library, so its
`train_one_epoch` is written out here: ClipLoss, two groups of parameters, the temperature held under 100. Its texts
are tokenized before (its loader does that), ours in the step. Rounds are paired, and each counts the process's own
seconds, so that what else the machine does matters less; the ratio is the median of the rounds' ratios.
"""

import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import count, cycle
from pathlib import Path
from typing import Annotated, Any, Literal

import open_clip
import torch
import tyro
from pydantic import Field
from torch import Tensor

from studio.backend.core import Backend
from studio.backend.shard import Shard
from studio.bench.dreambooth_step import Compared
from studio.catalog import methods
from studio.catalog.run import Run
from studio.contracts.batch import Batch
from studio.data.scenes import SceneSource
from studio.data.sticker_config import Stickers
from studio.models.clip import load_clip
from studio.records import runs
from studio.settings.config import Positive, config
from studio.settings.run import Hardware
from studio.training.loop import fit
from studio.training.session import Session

_WARM_UP = 2
_ENDLESS = 10**6
_NUM_BATCHES = 4


@config
class ClipBench:
    """Our contrastive step against open_clip's loop."""

    model: str = "studio-tiny-clip"
    """open_clip model that both train."""
    batch: Positive = 32
    """Pairs a step."""
    steps: Positive = 3
    """Steps of each in a round."""
    rounds: Annotated[int, Field(ge=3)] = 5
    """Paired rounds."""
    device: Literal["auto", "cuda", "mps", "cpu"] = "auto"
    """Device of both."""
    threads: Positive = 1
    """CPU threads of both."""


class Kept:
    """Batches in memory, over and over."""

    def __init__(self, batches: list[Batch]) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def stream(self, seed: int, first: int, shard: Shard) -> Iterator[Batch]:
        """The batches in turn."""
        del seed, shard
        return (dict(self.batches[step % len(self.batches)]) for step in count(first))


def drawn(settings: ClipBench) -> list[Batch]:
    """A few batches of sticker scenes with captions."""
    stream = SceneSource(Stickers()).stream(0, 0, Shard(settings.batch, 0, settings.batch))
    return [next(stream) for _ in range(_NUM_BATCHES)]


def our_steps(settings: ClipBench, batches: list[Batch], folder: Path) -> Iterator[object]:
    """Endless steps of our trainer."""
    values = {
        "method": {"kind": "clip", "model": settings.model, "data": {"kind": "scenes"}},
        "loop": {"steps": _ENDLESS, "batch_size": settings.batch, "log_every": _ENDLESS, "clip_norm": 0.0},
        "hardware": {"device": settings.device, "threads": settings.threads, "precision": "fp32"},
        "output": str(folder),
        "name": "ours",
    }
    run = Run.from_dict(values)
    trainer: Any = methods.card_of(run.method).load_trainer()(run.method)
    session = Session(run, runs.create(run), trainer, Backend(run.hardware))
    trainer.pairs = Kept(batches)
    return fit(trainer, session.learner, session.backend, run)


def plain_steps(settings: ClipBench, batches: list[Batch]) -> Iterator[object]:
    """Endless steps of open_clip's `train_one_epoch`."""
    hardware = Hardware(device=settings.device, threads=settings.threads, precision="fp32")
    device = Backend(hardware).device
    encoder = load_clip(settings.model)
    model: Any = encoder.network.to(device).train()
    model.output_dict = True
    pairs = [(batch["images"], encoder.tokenize(batch["captions"])) for batch in batches]
    loss, optimizer = open_clip.loss.ClipLoss(), _optimizer(model)
    for step, (images, texts) in enumerate(cycle(pairs)):
        optimizer.zero_grad()
        made: dict[str, Tensor] = model(images.to(device), texts.to(device))
        losses = loss(**made, output_dict=True)
        total = torch.stack(list(losses.values())).sum()
        total.backward()
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(100))
        yield step


def _optimizer(model: Any) -> torch.optim.Optimizer:
    """Norms, biases and the temperature without weight decay, as `open_clip_train.main` groups them."""
    named = list(model.named_parameters())
    plain = [p for n, p in named if p.ndim < 2 or "bn" in n or "ln" in n or "bias" in n or "logit_scale" in n]
    known = {id(p) for p in plain}
    groups = [
        {"params": plain, "weight_decay": 0.0},
        {"params": [p for _, p in named if id(p) not in known], "weight_decay": 0.2},
    ]
    return torch.optim.AdamW(groups, lr=1e-5, betas=(0.9, 0.98), eps=1e-6)


def compare(settings: ClipBench) -> Compared:
    """Pairs a second of both, round by round."""
    batches = drawn(settings)
    with tempfile.TemporaryDirectory() as temporary:
        both = {
            "ours": our_steps(settings, batches, Path(temporary)),
            "plain": plain_steps(settings, batches),
        }
        for steps in both.values():
            _seconds(steps, _WARM_UP)
        speeds: dict[str, list[float]] = {name: [] for name in both}
        for index in range(settings.rounds):
            for name in sorted(both, reverse=index % 2 == 1):
                speeds[name].append(settings.batch * settings.steps / _seconds(both[name], settings.steps))
    return Compared("contrastive step", tuple(speeds["ours"]), tuple(speeds["plain"]))


def _seconds(steps: Iterator[object], number: int) -> float:
    start = time.process_time()
    for _ in range(number):
        next(steps)
    return time.process_time() - start


def main() -> None:
    """Compare, and write one line of JSON to stdout."""
    settings = tyro.cli(ClipBench)
    found = compare(settings)
    spread = statistics.pstdev([a / b for a, b in zip(found.ours, found.plain, strict=True)])
    about = {
        "unit": "pairs a second of CPU time",
        "model": settings.model,
        "spread of ratios": round(spread, 3),
    }
    sys.stdout.write(json.dumps({**found.as_dict(), **about}) + "\n")


if __name__ == "__main__":
    main()
