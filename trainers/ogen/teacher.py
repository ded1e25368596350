"""Adaptive local mean teacher: the student's mean over a window of snapshots that grows along a cosine (section 3.3)."""

import math
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from trainers.ogen.config import Teacher


def window(t: int, settings: Teacher) -> int:
    """Snapshots in the window after snapshot t: m_t = round((1 + cos((T + t) / T pi)) / 2 (m_T - m_0) + m_0)."""
    horizon = settings.horizon
    share = (1 + math.cos((horizon + min(t, horizon)) / horizon * math.pi)) / 2
    return round(share * (settings.longest - settings.shortest) + settings.shortest)


class LocalMean:
    """Snapshots of what the student learns, and their mean.

    Snapshots are on the CPU: at most `longest` copies of what trains, which is little for prompts and adapters.
    """

    def __init__(self, settings: Teacher, student: Mapping[str, nn.Parameter]) -> None:
        self.settings, self.student = settings, dict(student)
        self.kept: deque[list[Tensor]] = deque(maxlen=settings.longest)
        self.taken = 0
        self._mean: list[Tensor] = []

    def after_step(self, step: int) -> None:
        """Take a snapshot where one is due."""
        if step % self.settings.period == 0:
            self.kept.append([value.detach().cpu().clone() for value in self.student.values()])
            self.taken += 1
            self._average()

    def _average(self) -> None:
        recent = list(self.kept)[-window(self.taken, self.settings) :]
        self._mean = [torch.stack(values).mean(0) for values in zip(*recent, strict=True)]

    @property
    def ready(self) -> bool:
        """Whether there is a teacher yet."""
        return bool(self._mean)

    @contextmanager
    def teaching(self) -> Iterator[None]:
        """Inside, the student has the teacher's weights. No graph of the student may be pending."""
        own = [value.data for value in self.student.values()]
        for value, mean in zip(self.student.values(), self._mean, strict=True):
            value.data = mean.to(value.device)
        try:
            yield
        finally:
            for value, before in zip(self.student.values(), own, strict=True):
                value.data = before

    def state(self) -> dict[str, object]:
        """The snapshots."""
        return {"kept": [list(one) for one in self.kept], "taken": self.taken}

    def load_state(self, state: dict[str, object]) -> None:
        """Take the snapshots back."""
        kept: list[list[Tensor]] = state["kept"]  # pyright: ignore[reportAssignmentType]  # what `state` gave
        self.kept.extend(kept)
        self.taken = int(state["taken"])  # pyright: ignore[reportArgumentType]  # what `state` gave
        if self.kept:
            self._average()
