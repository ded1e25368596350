"""Contrastive losses and their gradients as each process has them: `torchrun ... -m tests.matching.two_processes FOLDER`."""

import sys
from pathlib import Path
from typing import Any

import torch

from studio.adapters.config import Lora
from studio.backend.core import Backend
from studio.catalog import methods
from studio.catalog.run import Run
from studio.data.sticker_config import Stickers
from studio.matching.config import Scenes
from studio.settings.run import Hardware, Loop, Optim
from studio.training.loop import Objective, _backward
from studio.training.optim import Learner
from trainers.cafe.config import Cafe
from trainers.clip.config import Clip

PAIRS = 4


def settings(folder: Path) -> dict[str, Any]:
    """Methods with a contrast, over a folder of conversations."""
    scenes = Scenes(scenes=Stickers(num_concepts=8))
    return {
        "softmax": Clip(model="tiny:clip", data=scenes),
        "sigmoid": Clip(model="tiny:siglip", data=scenes),
        "cafe": Cafe(
            data=str(folder / "chats.json"), model="tiny:llava", adapter=Lora(rank=2, layers="linear")
        ),
    }


def gradients(method: Any, backend: Backend) -> tuple[dict[str, torch.Tensor], float]:
    """Gradients after a backward pass over this process's share, and the loss, its mean over the processes."""
    run = Run(method=method, loop=Loop(steps=1, batch_size=PAIRS), optim=Optim(lr=1e-3))
    trainer = methods.card_of(method).load_trainer()(method)
    trainer.backend = backend
    with backend.seeded(0):
        groups = trainer.setup(backend)
    learner = Learner(groups, run.optim, run.loop, backend.scaler())
    objective = backend.wrap(Objective(trainer, learner))
    batch = next(iter(trainer.source().stream(0, 0, backend.shard(PAIRS))))
    parts = _backward(objective, batch, run, 1, backend, learner)
    named = {
        f"{g.name}/{key}": p.grad.clone()
        for g in groups
        for key, p in g.parameters().items()
        if p.grad is not None
    }
    return named, float(backend.mean(parts["loss"]))


def found(folder: Path) -> dict[str, tuple[dict[str, torch.Tensor], float]]:
    """What each method gives."""
    backend = Backend(Hardware(device="cpu", threads=1))
    made = {name: gradients(method, backend) for name, method in settings(folder).items()}
    torch.save(made, folder / f"{backend.world}-{backend.rank}.pt")
    backend.wait()
    return made


if __name__ == "__main__":
    found(Path(sys.argv[1]))
    Backend(Hardware(device="cpu", threads=1)).close()
