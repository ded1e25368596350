"""What torch does while the device exists, in place of what it does otherwise: moving modules, and working in pools."""

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor


@contextlib.contextmanager
def replaced(where: Any, name: str, by: Any) -> Iterator[None]:
    """Have something else under a name, inside."""
    old = getattr(where, name)
    setattr(where, name, by)
    try:
        yield
    finally:
        setattr(where, name, old)


def at_once(_: ThreadPoolExecutor, work: Callable[..., Any], /, *args: Any, **options: Any) -> Future[Any]:
    """`ThreadPoolExecutor.submit` that does the work itself: fake tensors are not safe in several threads at once."""
    done = Future[Any]()
    try:
        done.set_result(work(*args, **options))
    except Exception as error:
        done.set_exception(error)
    return done


def moving(machine: Any) -> Callable[..., nn.Module]:
    """`nn.Module._apply` that puts new parameters: torch's own changes the old ones in place, which may not turn fake.

    A parameter that two modules share stays shared.
    """

    def apply(module: nn.Module, change: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
        made: dict[int, nn.Parameter | Tensor] = {}
        parts = list(module.modules()) if recurse else [module]
        machine.keeps = True
        try:
            for part in parts:
                _changed(machine, part._parameters, change, made)
                _changed(machine, part._buffers, change, made)
        finally:
            machine.keeps = False
        return module

    return apply


def _changed(
    machine: Any, values: dict[str, Any], change: Callable[[Tensor], Tensor], made: dict[int, Any]
) -> None:
    for name, value in values.items():
        if value is None:
            continue
        if id(value) not in made:
            with torch.no_grad():
                new = change(value)
            if isinstance(value, nn.Parameter) and new is not value:
                new = nn.Parameter(new, value.requires_grad)
            made[id(value)] = new
            if isinstance(new, FakeTensor):
                machine.meter_of(new).call(new, "weights")
        values[name] = made[id(value)]
