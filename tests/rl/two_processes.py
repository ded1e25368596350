"""Gradients of one TexForce update as each process has them: `torchrun ... -m tests.rl.two_processes FOLDER`."""

import sys
from pathlib import Path

import torch

from studio.backend.core import Backend
from studio.catalog.run import Run
from studio.rewards.config import Brightness, Redness
from studio.rl.config import Ppo, Rollouts
from studio.settings.run import Hardware, Loop, Optim
from studio.training.loop import Objective, _backward
from studio.training.optim import Learner
from trainers.texforce.config import TexForce
from trainers.texforce.trainer import TexForceTrainer

METHOD = TexForce(
    prompts=("a dog", "a cat"), model="tiny:sd1", reward=Redness(), held_out=Brightness(), ppo=Ppo(fraction=1.0),
    rollouts=Rollouts(images=4, steps=3, group=2, noise=1.0),
)  # fmt: skip
PICTURES = 4


def gradients() -> tuple[Backend, dict[str, torch.Tensor], dict[str, float]]:
    """Gradients after a backward pass over this process's share, and the means that a step tells."""
    backend = Backend(Hardware(device="cpu", threads=1))
    run = Run(method=METHOD, loop=Loop(steps=1, batch_size=PICTURES), optim=Optim(lr=1e-3))
    trainer = TexForceTrainer(METHOD)
    trainer.backend = backend
    with backend.seeded(0):
        groups = trainer.setup(backend)
    learner = Learner(groups, run.optim, run.loop, backend.scaler())
    objective = backend.wrap(Objective(trainer, learner))
    batch = next(trainer.batches(trainer.source().stream(0, 0, backend.shard(PICTURES)), 0))
    parts = _backward(objective, batch, run, 1, backend, learner)
    named = {key: p.grad.clone() for group in groups for key, p in group.parameters().items()}
    return backend, named, {key: float(backend.mean(value)) for key, value in parts.items()}


if __name__ == "__main__":
    machine, found, told = gradients()
    torch.save({"gradients": found, "parts": told}, Path(sys.argv[1]) / f"{machine.rank}.pt")
    machine.wait()
    machine.close()
