"""What torch is told while the device exists: which tensors are on it, what moves there, and what reading gives.

Tensors on the CPU stay real, values and all; only what is moved or made on the device becomes fake. So data, prompts,
schedules and files are what they are on a GPU, and no code asks which device it runs on.
"""

# torch's dispatcher has no types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from typing_extensions import override

from studio.backend.simulated import autocast
from studio.backend.simulated.autocast import NAME
from studio.backend.simulated.device import install
from studio.backend.simulated.meter import Meter
from studio.backend.simulated.remembered import Remembered
from studio.backend.simulated.replaced import at_once, moving, replaced

_aten = torch.ops.aten


class Machine:
    """A machine with the simulated device.

    Attributes:
        device: The device.
        here: What its memory holds.
        host: What the machine's own memory holds of models (of fake ones: data and prompts are not counted).
        reads: Values read back since the start; each would make a GPU wait.
        units, whole: Depth that a published denoiser is built with, and the one it has; 0 where it is left whole.
    """

    def __init__(self, units: int = 0) -> None:
        self.units, self.whole = units, 0
        self.device = install()
        self.here, self.host = Meter(), Meter()
        self.reads = 0
        self._fake = FakeTensorMode(allow_non_fake_inputs=True)
        self._known = Remembered(self._fake, self.device)
        self.keeps = False
        self._part, self._found = "", dict[str, Counter[str]]()

    def mark(self, part: str) -> None:
        """From now on a part of the model works: memory is counted for each part of it on its own."""
        if part != self._part:
            self._note()
            self._part = part

    def read(self) -> dict[str, Counter[str]]:
        """Bytes by kind at the highest moment of each part since the last reading; and begin anew."""
        self._note()
        found, self._found, self._part = self._found, {}, ""
        return found

    def _note(self) -> None:
        before = self._found.get(self._part)
        if before is None or self.here.highest > before.total():
            self._found[self._part] = self.here.peak
        self.here.reset()

    def meter_of(self, tensor: Tensor) -> Meter:
        """Who counts a tensor."""
        return self.here if tensor.device.type == NAME else self.host

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """A tensor in the machine's own memory that is not there: weights before they are moved."""
        with self._fake:
            found = torch.empty(shape, dtype=dtype)
        self.host.call(found, "weights")
        return found

    def run(self, operator: Any, args: Any, options: Any) -> Any:
        """An operator whose result is on the device."""
        args, options = tree_map_only(Tensor, self._faked, (args, options))
        with self._fake:
            return operator(*args, **options)

    def remembered(self, operator: Any, args: Any, options: Any) -> Any:
        """An operator on tensors that are on the device already, perhaps known from before."""
        key = self._known.key(operator, args, options)
        found = None if key is None else self._known.again(key)
        if found is None:
            found = operator(*args, **options)
            if key is not None:
                self._known.keep(key, found)
        return found

    def _faked(self, value: Tensor) -> Tensor:
        return value if isinstance(value, FakeTensor) else self._fake.from_tensor(value)

    @contextlib.contextmanager
    def present(self) -> Iterator[None]:
        """In this thread: the device is there."""
        with _Operators(self), _Reads(self):
            yield


class _Operators(TorchDispatchMode):
    """Below autograd: what is made or moved."""

    def __init__(self, machine: Machine) -> None:
        super().__init__()
        self._machine = machine

    @override
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        options, machine = kwargs or {}, self._machine
        place = options.get("device")
        if func in _READS and (found := self._read(func, args)) is not None:
            return found
        if func is _aten.index.Tensor:
            args = (args[0], [each for index in args[1] for each in self._places(index)])
        if place is not None and torch.device(place).type == NAME:
            found = machine.run(func, args, options)
        elif (
            func is _aten._to_copy.default and place is not None and _on_device(args[0]) and not machine.keeps
        ):
            machine.reads += 1
            return torch.ones(args[0].shape, dtype=options.get("dtype") or args[0].dtype)
        else:
            found = machine.remembered(func, args, options)
        for each in tree_leaves(found):
            if isinstance(each, FakeTensor):
                machine.meter_of(each).add(each)
        return found

    def _places(self, index: Tensor | None) -> Iterator[Tensor | None]:
        """An index, a mask as the places that it has: all of them, since its values are ones."""
        if index is None or index.dtype != torch.bool or not isinstance(index, FakeTensor):
            yield index
            return
        places = self._read(_aten.nonzero.default, (index,))
        yield from self._machine.remembered(_aten.unbind.int, (places, 1), {})

    def _read(self, func: Any, args: Any) -> Any:
        """What an operator gives that reads values of the device: of ones; None if it reads none."""
        source = args[1] if func is _aten.copy_.default else args[0]
        if not isinstance(source, FakeTensor) or (
            func is _aten.copy_.default and isinstance(args[0], FakeTensor)
        ):
            return None
        self._machine.reads += 1
        if func is _aten.copy_.default:
            return args[0].fill_(1)
        if func is _aten.nonzero.default:
            shape = [source.numel(), source.ndim]
            found = self._machine.run(
                _aten.empty.memory_format, (shape,), {"dtype": torch.int64, "device": source.device}
            )
            self._machine.here.add(found)
            return found
        return _one(source.dtype)


_READS = (_aten._local_scalar_dense.default, _aten.copy_.default, _aten.nonzero.default)
"""Operators whose result, or its shape, is made of values."""


def is_there(tensor: Tensor) -> bool:
    """Whether a tensor has values."""
    return not isinstance(tensor, FakeTensor)


def _on_device(value: Tensor) -> bool:
    return isinstance(value, FakeTensor) and value.device.type == NAME


def _one(dtype: torch.dtype) -> bool | float | int:
    if dtype == torch.bool:
        return True
    return 1.0 if dtype.is_floating_point else 1


class _Reads(TorchFunctionMode):
    """Above autograd: calls that C++ answers without an operator."""

    def __init__(self, machine: Machine) -> None:
        super().__init__()
        self._machine = machine
        self._own: dict[Any, Callable[..., Any]] = {
            Tensor.numpy: lambda value, **_: self._ones(value).numpy(),
            Tensor.__array__: lambda value, *_: self._ones(value).numpy(),
            Tensor.tolist: lambda value: self._ones(value).tolist(),
        }

    @override
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        options = kwargs or {}
        if func in (torch.tensor, torch.as_tensor) and _named(options.get("device")):
            place = options.pop("device")
            return func(*args, **options).to(place)
        own = self._own.get(func)
        if own is not None and args and isinstance(args[0], FakeTensor):
            return own(*args, **options)
        return func(*args, **options)

    def _ones(self, value: Tensor) -> Tensor:
        self._machine.reads += 1
        return torch.ones(value.shape, dtype=value.dtype)


def _named(place: object) -> bool:
    return isinstance(place, str | torch.device) and torch.device(place).type == NAME


_machines: list[Machine] = []


def current() -> Machine | None:
    """The machine that is being simulated, if one is, in all threads."""
    return _machines[-1] if _machines else None


@contextlib.contextmanager
def machine(*, units: int = 0) -> Iterator[Machine]:
    """A machine with the simulated device, in this thread; in others `Machine.present` brings it.

    Args:
        units: Depth of published denoisers, see `studio.models.depth`; 0 leaves them whole.

    Raises:
        StudioError: This torch cannot have the device.
    """
    found = Machine(units)
    with contextlib.ExitStack() as stack:
        _machines.append(found)
        stack.callback(_machines.pop)
        stack.enter_context(replaced(nn.Module, "_apply", moving(found)))
        stack.enter_context(replaced(ThreadPoolExecutor, "submit", at_once))
        stack.enter_context(replaced(torch, "clear_autocast_cache", autocast.forget))
        stack.callback(autocast.forget)
        stack.enter_context(found.present())
        yield found
