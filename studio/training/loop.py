"""The one training loop: a generator of steps. It alone accumulates, clips, steps and counts."""

# torch's own annotations are partly unknown under the strict rules.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from studio.backend.core import Backend
from studio.catalog.run import Run
from studio.contracts.batch import Batch, Source
from studio.contracts.trainer import Loss, Trainer
from studio.errors import RunFailed, StudioError
from studio.training.optim import Learner


@dataclass(frozen=True)
class Step:
    """One finished optimizer step. `values` is empty between logged steps."""

    step: int
    values: dict[str, float] = field(default_factory=dict)


class Objective(nn.Module):
    """A trainer's loss as a module over all that trains, so that its forward can be wrapped for many processes."""

    def __init__(self, trainer: Trainer, learner: Learner) -> None:
        super().__init__()
        self.parts = nn.ModuleList(dict.fromkeys(g.module for g in learner.groups if g.trains))
        self.method = trainer

    def forward(self, batch: Batch, rng: object) -> Loss:
        """The loss of one part of a batch."""
        return self.method.loss(batch, rng)  # pyright: ignore[reportArgumentType]  # nn.Module forwards are untyped


def rows(batch: Batch) -> int:
    """Number of examples of a batch."""
    return len(next(iter(batch.values())))


def split(batch: Batch, parts: int) -> list[Batch]:
    """A batch cut into equal parts along its first axis."""
    size = rows(batch) // parts
    return [{k: v[i * size : (i + 1) * size] for k, v in batch.items()} for i in range(parts)]


class Meter:
    """Sums losses on the device between logged steps, so that no step waits for the device."""

    def __init__(self, backend: Backend, every: int) -> None:
        self._backend, self._every = backend, every
        self._reset()

    def _reset(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._steps, self._examples, self._start = 0, 0, time.perf_counter()

    def add(self, parts: dict[str, Tensor], examples: int) -> None:
        """Count one step."""
        for key, value in parts.items():
            self._sums[key] = self._sums[key] + value if key in self._sums else value
        self._steps, self._examples = self._steps + 1, self._examples + examples

    def read(self, step: int, lr: float) -> dict[str, float]:
        """Means since the last logged step if `step` is one, else nothing."""
        if step % self._every and step != 1:
            return {}
        values = {k: float(self._backend.mean(v)) / self._steps for k, v in self._sums.items()}
        seconds = time.perf_counter() - self._start
        values |= {"lr": lr, "seconds": seconds / self._steps, "images_per_second": self._examples / seconds}
        self._reset()
        return values | self._backend.memory()


def _backward(
    objective: nn.Module, batch: Batch, run: Run, step: int, backend: Backend, learner: Learner
) -> dict[str, Tensor]:
    parts = split(backend.move(batch), run.loop.accumulate)
    sums: dict[str, Tensor] = {}
    for index, part in enumerate(parts):
        rng = backend.rng(run.seed, step, rows=rows(batch), part=index, parts=len(parts))
        last = index == len(parts) - 1
        with backend.accumulating(objective, last=last), backend.learning(), backend.autocast():
            loss: Loss = objective(part, rng)
            if run.optim.fused_backward:  # its backward pass moves the weights
                require_finite({"loss": loss.total}, step)
            learner.scaler.scale(loss.total / len(parts)).backward()
        for key, value in {"loss": loss.total, **loss.parts}.items():
            sums[key] = sums.get(key, 0) + value.detach().float() / len(parts)
    return sums


def require_finite(values: dict[str, Tensor], step: int) -> None:
    """Stop the run when a loss or the gradient is not finite, before it can touch the weights.

    Raises:
        RunFailed: names the step, the part and the likely cause.
    """
    names = list(values)
    finite = torch.isfinite(torch.stack([values[n].float() for n in names]))
    if bool(finite.all()):
        return
    bad = ", ".join(n for n, ok in zip(names, finite.tolist(), strict=True) if not ok)
    raise RunFailed(
        f"Step {step}: {bad} is not finite; the weights of step {step - 1} are kept. Likely causes: learning rate "
        "too high (lower --optim.lr), half precision (try --hardware.precision fp32), or a broken example in the data."
    )


def fit(  # what a loop needs
    trainer: Trainer,
    learner: Learner,
    backend: Backend,
    run: Run,
    *,
    first: int = 0,
    source: Source | None = None,
) -> Iterator[Step]:
    """Train from step `first` to the last one, yielding after each optimizer step; on the trainer's source, or a given one.

    Closing the generator stops between two steps. A step is one optimizer step over the global batch, at any
    number of processes and any accumulation.
    """
    objective = backend.wrap(Objective(trainer, learner))
    data = (source or trainer.source()).stream(run.seed, first, backend.shard(run.loop.batch_size))
    meter = Meter(backend, run.loop.log_every)
    stream = trainer.batches(data, first)
    for step in range(first + 1, run.loop.steps + 1):
        batch = next(stream, None)
        if batch is None and step == 1:
            raise StudioError(
                f"The data gave no batch of {run.loop.batch_size} examples to begin with; check it, or lower --loop.batch-size.",
                field="loop.batch_size",
            )
        if batch is None:
            return
        backend.seed(run.seed, step)
        parts = _backward(objective, batch, run, step, backend, learner)
        parts["grad_norm"] = learner.gradient_norm()
        require_finite(
            {k: v for k, v in parts.items() if k != "grad_norm" or not learner.scaler.is_enabled()}, step
        )
        lr = learner.lr()
        learner.step()
        trainer.after_step(step)
        meter.add(parts, run.loop.batch_size)
        yield Step(step, meter.read(step, lr))
