"""A tiny network with fixed weights, and a step that moves what trains."""

import copy
from collections.abc import Callable, Iterable

import pytest
import torch
from torch import Tensor, nn

Model = Callable[[], nn.Module]


class Net(nn.Module):
    """A strided 3x3 and a 1x1 convolution, norms, and linear layers on (b d), (b n d) and (b h w d)."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.ModuleDict(
            {
                "conv": nn.Conv2d(4, 32, 3, stride=2, padding=1),
                "group_norm": nn.GroupNorm(4, 32),
                "point": nn.Conv2d(32, 32, 1),
                "wide": nn.Linear(32, 32),
                "norm": nn.LayerNorm(32),
                "to_q": nn.Linear(32, 64, bias=False),
                "to_out": nn.Linear(64, 32),
                "head": nn.Linear(32, 32),
            }
        )

    def forward(self, images: Tensor) -> Tensor:
        b = self.block
        x = b["point"](b["group_norm"](b["conv"](images)).relu())
        x = b["wide"](x.movedim(1, -1)).flatten(1, 2)
        return b["head"](b["to_out"](b["to_q"](b["norm"](x)).tanh()).mean(1))


@pytest.fixture(scope="session")
def original() -> Net:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Net().eval()


@pytest.fixture
def net(original) -> Net:
    return copy.deepcopy(original)


@pytest.fixture
def another(original) -> Model:
    return lambda: copy.deepcopy(original)


@pytest.fixture
def see() -> Callable[[nn.Module], Tensor]:
    images = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    return torch.no_grad()(lambda model: model(images))


@pytest.fixture
def move() -> Callable[[nn.Module, Iterable[str]], None]:
    """Add noise to named parameters, as training would."""

    @torch.no_grad()
    def step(model: nn.Module, names: Iterable[str], size: float = 0.05) -> None:
        generator = torch.Generator().manual_seed(2)
        parameters = dict(model.named_parameters())
        for name in sorted(names):
            value = parameters[name]
            value += size * torch.randn(value.shape, generator=generator)

    return step
