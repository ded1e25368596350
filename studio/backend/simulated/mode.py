"""What torch is told while the device exists: which tensors are on it, what moves there, and what reading gives.

Tensors on the CPU stay real, values and all; only what is moved or made on the device becomes fake. So data, prompts,
schedules and files are what they are on a GPU, and no code asks which device it runs on.
"""

# torch's dispatcher has no types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import contextlib
import functools
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
from studio.backend.simulated.indexing import everywhere, new_tensor, placed, without_masks
from studio.backend.simulated.meter import Meter
from studio.backend.simulated.remembered import Remembered
from studio.backend.simulated.replaced import at_once, moving, replaced
from studio.errors import StudioError

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

    def ones(self, value: Tensor) -> Tensor:
        """What reading a tensor gives."""
        self.reads += 1
        return torch.ones(value.shape, dtype=value.dtype)

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
        read = self._read(func, args, options)
        if read is not None:
            machine.reads += 1
            return read
        if func is _aten.index.Tensor and any(_is_mask(each) for each in args[1]):
            machine.reads += 1
            args = (args[0], without_masks(args[1]))
        on_device = place is not None and torch.device(place).type == NAME
        found = machine.run(func, args, options) if on_device else machine.remembered(func, args, options)
        for each in tree_leaves(found):
            if isinstance(each, FakeTensor):
                machine.meter_of(each).add(each)
        return found

    def _read(self, func: Any, args: Any, options: Any) -> Any:
        """What an operator gives that reads values back; None for every other."""
        if func is _aten._local_scalar_dense.default and isinstance(args[0], FakeTensor):
            return _one(args[0].dtype)
        if func is _aten.copy_.default and isinstance(args[1], FakeTensor) and is_there(args[0]):
            return args[0].fill_(1)
        if func is _aten.nonzero.default and _on_device(args[0]):
            return torch.stack(everywhere(args[0]), dim=1)
        place = options.get("device")
        leaves = place is not None and torch.device(place).type != NAME and not self._machine.keeps
        if func is _aten._to_copy.default and leaves and _on_device(args[0]):
            return torch.ones(args[0].shape, dtype=options.get("dtype") or args[0].dtype)
        return None


def is_there(tensor: Tensor) -> bool:
    """Whether a tensor has values."""
    return not isinstance(tensor, FakeTensor)


def _on_device(value: Tensor) -> bool:
    return isinstance(value, FakeTensor) and value.device.type == NAME


def _is_mask(value: Tensor | None) -> bool:
    return value is not None and value.dtype == torch.bool and _on_device(value)


def _one(dtype: torch.dtype) -> bool | float | int:
    if dtype == torch.bool:
        return True
    return 1.0 if dtype.is_floating_point else 1


class _Reads(TorchFunctionMode):
    """Above autograd: calls that C++ answers without an operator."""

    def __init__(self, machine: Machine) -> None:
        super().__init__()
        self._own: dict[Any, Callable[..., Any]] = {
            Tensor.numpy: lambda value, **_: machine.ones(value).numpy(),
            Tensor.__array__: lambda value, *_: machine.ones(value).numpy(),
            Tensor.new_tensor: new_tensor,
            Tensor.__getitem__: lambda value, at: Tensor.__getitem__(value, placed(at, value)),
            Tensor.__setitem__: lambda value, at, new: Tensor.__setitem__(value, placed(at, value), new),
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
        StudioError: This torch cannot have the device, or not any more in this process.
    """
    found = Machine(units)
    with contextlib.ExitStack() as stack:
        _machines.append(found)
        stack.callback(_machines.pop)
        stack.enter_context(replaced(nn.Module, "_apply", moving(found)))
        stack.enter_context(replaced(FakeTensor, "tolist", lambda value: found.ones(value).tolist()))
        stack.enter_context(replaced(ThreadPoolExecutor, "submit", at_once))
        stack.enter_context(replaced(torch, "clear_autocast_cache", autocast.forget))
        stack.callback(autocast.forget)
        stack.enter_context(found.present())
        _check_gradients(found.device)
        yield found


@functools.cache
def _check_gradients(device: torch.device) -> None:
    """Refuse a process whose autograd began before the device was there: it has no queue for it, and gets none."""
    try:
        torch.zeros(1, device=device, requires_grad=True).sum().backward()
    except RuntimeError:
        raise StudioError(
            "Gradients were computed in this process before the simulated device was there, and torch takes no device "
            "after that; plan the run in a process of its own: studio plan METHOD --model NAME --gpu 12GiB.",
            field="hardware.device",
        ) from None
