"""Which parts of a model are on the device: all of them, or some only while they work."""

import contextlib
from collections.abc import Iterator

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel


class Presence:
    """Parts that rest in the machine's own memory between two uses; all others stay where they are."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._resting, self._working = set[nn.Module](), set[nn.Module]()
        self._away = set[nn.Module]()

    def rest(self, *modules: nn.Module) -> None:
        """From now on these are on the device only while they work."""
        for module in modules:
            self._resting.add(module)
            module.to("cpu")

    def hold(self, *modules: nn.Module) -> None:
        """From now on these stay on the device."""
        for module in self._resting.intersection(modules):
            self._resting.remove(module)
            module.to(self._device)

    def make_room(self, *modules: nn.Module) -> None:
        """Have the frozen weights of these off the device until they are to be present again."""
        self._carry(set(modules) - self._away, "cpu")

    @contextlib.contextmanager
    def present(self, *modules: nn.Module) -> Iterator[None]:
        """Have modules on the device; those that rest leave it after, unless something around this needs them too."""
        self.hold(*(each for each in modules if any(p.requires_grad for p in each.parameters())))
        called = self._resting.intersection(modules) - self._working
        self._working |= called
        self._carry(self._away.intersection(modules), self._device)
        try:
            for module in called:
                module.to(self._device)
            yield
        finally:
            self._working -= called
            for module in called & self._resting:
                module.to("cpu")

    def _carry(self, modules: set[nn.Module], where: torch.device | str) -> None:
        """Move the frozen weights and buffers of modules: what trains stays with its gradient and its optimizer."""
        for module in modules:
            frozen = {
                id(each) for each in (*module.parameters(), *module.buffers()) if not each.requires_grad
            }
            module._apply(lambda each, frozen=frozen: each.to(where) if id(each) in frozen else each)
            (self._away.add if where == "cpu" else self._away.discard)(module)


def unwrap(module: nn.Module) -> nn.Module:
    """The module inside a distributed wrapper."""
    return module.module if isinstance(module, DistributedDataParallel) else module
