"""A net of every kind of layer that rotations take, and steps that move them."""

import pytest
import torch
from torch import nn

from studio.adapters.build import attach
from studio.adapters.config import Oft
from studio.adapters.orthogonal import RotatedLinear, project, rotated_layers

ONLY = ("a", "b", "c", "d", "e")
CONV = Oft(block_size=8, only=ONLY, conv=True)
LINEAR = Oft(block_size=8, only=("a", "e"))


class Net(nn.Module):
    """Linear layers on four axes (channels last), a strided, a dilated and a 1x1 convolution, one in groups."""

    def __init__(self):
        super().__init__()
        self.a, self.e = nn.Linear(32, 16), nn.Linear(16, 24, bias=False)
        self.b = nn.Conv2d(24, 16, 3, stride=2, padding=2, dilation=2)
        self.c, self.d = (
            nn.Conv2d(16, 16, 1),
            nn.Conv2d(16, 8, 3, padding=1, groups=2, padding_mode="circular"),
        )

    def forward(self, x):
        return self.d(self.c(self.b(self.e(self.a(x).tanh()).movedim(-1, 1))))


@pytest.fixture
def net():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Net()


@pytest.fixture
def x():
    return torch.randn(2, 9, 9, 32, generator=torch.Generator().manual_seed(1))


def shake(module, name="studio", size=0.2):
    """Move a rotation, and the lengths if there are any, as training would."""
    generator = torch.Generator().manual_seed(2)
    for _, layer in rotated_layers(module, name):
        for value in (layer.rotation.weight, *layer.oft_s.values()):
            nn.init.normal_(value, std=size, generator=generator)
    return module


def toy(adapter, width=32, out=24, steps=100, lr=1e-2):
    """A layer fitted to a random target with Adam; projected after each step, whose norms are noted."""
    generator = torch.Generator().manual_seed(3)
    module = nn.ModuleDict({"layer": nn.Linear(width, out)})
    nn.init.normal_(module["layer"].weight, std=0.2, generator=generator)
    nn.init.zeros_(module["layer"].bias)
    attach(adapter, {"model": module})
    x, y = (torch.randn(64, size, generator=generator) for size in (width, out))
    optimizer = torch.optim.Adam([value for value in module.parameters() if value.requires_grad], lr=lr)
    losses, norms = [], []
    for _ in range(steps):
        loss = (module["layer"](x) - y).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        project({"model": module})
        losses.append(float(loss.detach()))
        if isinstance(layer := module["layer"], RotatedLinear):
            blocks = layer.rotation.rotations().detach()
            norms.append(float((blocks - torch.eye(blocks.shape[-1])).norm()))
    return module, losses, norms
