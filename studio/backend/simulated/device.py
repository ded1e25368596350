"""The device's name in torch, and whether this torch can have it."""

import functools
from typing import Any

import torch

from studio.backend.simulated import attention, autocast
from studio.backend.simulated.autocast import NAME
from studio.errors import StudioError


@functools.cache
def install() -> torch.device:
    """Give the device its name in this process; torch has no way back, and a process needs it once.

    Raises:
        StudioError: This torch lacks what the device stands on, or another device has taken the place.
    """
    if reason := missing():
        raise StudioError(
            f"The simulated device needs parts of torch that this one lacks ({reason}); install torch 2.10 or newer.",
            field="hardware.device",
        )
    from torch.utils import backend_registration

    setup: Any = backend_registration._setup_privateuseone_for_python_backend
    setup(NAME, backend_module=_module(backend_registration._DummyBackendModule))
    autocast.register()
    attention.register()
    return torch.device(NAME, 0)


def missing() -> str:
    """What this torch lacks for the device, by name; empty if nothing."""
    wanted = (
        ("torch.utils.backend_registration", "_setup_privateuseone_for_python_backend"),
        ("torch.utils.backend_registration", "_DummyBackendModule"),
        ("torch._subclasses.fake_tensor", "FakeTensorMode"),
        ("torch.library", "fallthrough_kernel"),
        ("torch._C", "_ExcludeDispatchKeyGuard"),
        ("torch._C", "DispatchKeySet"),
    )
    for module, name in wanted:
        try:
            found = __import__(module, fromlist=[name])
        except ImportError:
            return module
        if not hasattr(found, name):
            return f"{module}.{name}"
    taken = torch._C._get_privateuse1_backend_name()
    return "" if taken in ("privateuseone", NAME) else f"another device, {taken!r}, is in its place"


def _module(base: type) -> Any:
    """What torch asks of a device: one of it, with both half precisions and no numbers of its own."""

    class Module(base):
        def get_amp_supported_dtype(self) -> list[torch.dtype]:
            return [torch.bfloat16, torch.float16]

        def get_rng_state(self, *_: object) -> torch.Tensor:
            return torch.zeros(1, dtype=torch.uint8)

        def set_rng_state(self, *_: object) -> None:
            """There is none."""

        def synchronize(self, *_: object) -> None:
            """Nothing runs."""

    return Module()
