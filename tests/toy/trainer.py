"""The toy method: y = 2x + 1 from noisy points."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from studio.backend.core import Backend
from studio.backend.rng import Rng, mix
from studio.backend.shard import Shard
from studio.contracts.batch import Batch
from studio.contracts.sampling import Output, Request
from studio.contracts.trainer import Group, Loss, Trainer
from tests.toy.config import Toy


class Points:
    """An endless stream of points, a function of (seed, step, row)."""

    def stream(self, seed: int, first: int, shard: Shard) -> Iterator[Batch]:
        step = first
        while True:
            draws = torch.rand(shard.total, 4, generator=torch.Generator().manual_seed(mix(seed, step, 7)))
            rows = draws[shard.start : shard.stop]
            yield {"x": rows, "y": 2 * rows.sum(1, keepdim=True) + 1, "step": [step + 1] * len(rows)}
            step += 1

    def __len__(self) -> int:
        return 1000


class ToyTrainer(Trainer):
    """Least squares with noise on the input."""

    def __init__(self, config: Toy) -> None:
        self.config = config
        self.seen = 0

    def setup(self, backend: Backend) -> list[Group]:
        self.net = backend.place(
            nn.Sequential(nn.Linear(4, 8), nn.Dropout(self.config.dropout), nn.Linear(8, 1)), trains=True
        )
        self.frozen = backend.place(nn.Linear(2, 2))
        return [Group(name="net", module=self.net), Group(name="frozen", module=self.frozen, trains=False)]

    def source(self) -> Points:
        return Points()

    def held_out(self) -> Points:
        return Points()

    def loss(self, batch: Batch, rng: Rng) -> Loss:
        if batch["step"][0] == self.config.die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        noisy = batch["x"] + self.config.noise * rng.normal(*batch["x"].shape)
        error = (self.net(noisy) - batch["y"]).square().mean()
        if batch["step"][0] == self.config.fail_at:
            error = error * float("nan")
        return Loss(error, {"error": error})

    def after_step(self, step: int) -> None:
        self.seen = step

    def sample(self, request: Request, rng: Rng) -> Output:
        return Output(texts=[f"{float(self.net(torch.ones(1, 4))):.4f}"])

    def prompts(self) -> list[str]:
        return ["ones"]

    def score(self, output: Output, request: Request) -> dict[str, float]:
        return {"quality": -abs(float(output.texts[0]) - 9.0)}

    def state(self) -> dict[str, Any]:
        return {"seen": self.seen, "nested": {"list": [torch.ones(2), 3.0]}}

    def load_state(self, state: dict[str, Any]) -> None:
        self.seen = state["seen"]

    def export(self, folder: Path) -> list[Path]:
        path = Path(folder) / "line.safetensors"
        save_file({k: v.detach().clone().contiguous() for k, v in self.net.state_dict().items()}, path)
        return [path]
