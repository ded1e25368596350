"""Device, precision, processes: what a method never asks about."""

import contextlib
import datetime as dt
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import torch
from accelerate import PartialState
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.nn.functional import all_gather
from torch.nn.parallel import DistributedDataParallel

from studio.backend import sharding
from studio.backend.attention import choose_attention, forced_kernel
from studio.backend.precision import kept_exact
from studio.backend.rng import Rng, mix, seeded
from studio.backend.shard import Shard
from studio.backend.simulated import mode as simulated
from studio.errors import StudioError
from studio.settings.run import Hardware

M = TypeVar("M", bound=nn.Module)
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Backend:
    """The machine as one run sees it.

    Attributes:
        device: Where tensors live.
        dtype: Compute dtype of frozen weights; trained weights are always fp32.
        rank, world: This process and the number of processes.
        sharded: The trained models are spread over the processes.
        attention: Name of the attention kernel in use.
    """

    def __init__(self, hardware: Hardware = Hardware()) -> None:
        self.hardware = hardware
        self.device: torch.device = _device(hardware.device)
        if hardware.threads:
            torch.set_num_threads(hardware.threads)
        own = self.device.type not in ("cpu", "simulated")
        self._state = PartialState(cpu=not own, timeout=dt.timedelta(hours=2))
        self.rank, self.world = self._state.process_index, self._state.num_processes
        self.sharded = hardware.sharded and self.world > 1
        if self.device.type == "cuda":
            self.device = torch.device("cuda", self._state.local_process_index)
        self.precision = _precision(hardware.precision, self.device)
        self.dtype = _DTYPES[self.precision]
        self.attention, self.attention_reason = choose_attention(hardware.attention, self.device, self.dtype)
        torch.backends.cuda.matmul.allow_tf32 = hardware.tf32
        torch.backends.cudnn.allow_tf32 = hardware.tf32
        _deterministic(hardware.deterministic)
        self._around: list[Callable[[], contextlib.AbstractContextManager[object]]] = []

    def around_losses(self, opened: Callable[[], contextlib.AbstractContextManager[object]]) -> None:
        """Have a context open around every loss and its gradient, and at no other time."""
        self._around.append(opened)

    @contextlib.contextmanager
    def learning(self) -> Iterator[None]:
        """Around a loss and its gradient; activations that are computed again see the same."""
        with contextlib.ExitStack() as stack:
            for opened in self._around:
                stack.enter_context(opened())
            yield

    def place(self, module: M, *, trains: bool = False, rests: bool = False) -> M:
        """Move a module here: frozen ones in the compute dtype and without gradients, trained ones in fp32.

        Args:
            module: The module.
            trains: Whether it trains.
            rests: Leave it in the machine's own memory, cast, until it is needed.
        """
        dtype, where = torch.float32 if trains else self.dtype, torch.device("cpu") if rests else self.device
        kept = {name: value.data.float() for name, value in kept_exact(module, dtype)}
        module.to(where, dtype)
        for name, value in kept.items():
            place, _, own = name.rpartition(".")
            setattr(module.get_submodule(place), own, nn.Parameter(value.to(where)))
        module.requires_grad_(trains).train(trains)
        films = any(p.ndim == 5 for p in module.parameters())  # the format is one of 4 axes
        if self.hardware.channels_last and not (films or self.sharded or self.device.type == "mps"):
            module.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]  # torch's stub lacks it
        return module

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """Mixed precision for a forward pass; nothing at fp32."""
        return torch.autocast(self.device.type, self.dtype, enabled=self.precision != "fp32")

    def exact(self) -> contextlib.AbstractContextManager[object]:
        """No mixed precision inside, whatever is on outside: for modules that overflow in fp16."""
        return torch.autocast(self.device.type, enabled=False)

    def kernel(self) -> contextlib.AbstractContextManager[object]:
        """Hold torch's attention to the kernel that was asked for; free choice for `sdpa` and other libraries."""
        return forced_kernel(self.attention)

    def scaler(self) -> torch.amp.GradScaler:
        """The loss scaler that fp16 needs; inert otherwise."""
        return torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")

    def spread(self, modules: Iterable[nn.Module]) -> None:
        """Shard models over the processes where the settings say so; their parameters are new objects afterwards."""
        if self.sharded:
            over = init_device_mesh(self.device.type, (self.world,))
            for module in modules:
                sharding.spread(module, over)

    def wrap(self, module: nn.Module) -> nn.Module:
        """Let gradients be averaged over the processes. Forward passes must go through what this returns."""
        if self.world == 1 or self.sharded:  # sharded modules average their own
            return module
        ids = [self.device.index] if self.device.type == "cuda" else None
        return DistributedDataParallel(
            module, device_ids=ids, broadcast_buffers=False, find_unused_parameters=True
        )

    def accumulating(self, module: nn.Module, *, last: bool) -> contextlib.AbstractContextManager[object]:
        """Skip the averaging of gradients over processes until the last part of a batch."""
        if self.sharded:
            sharding.synchronize(module, wanted=last)
        if last or not isinstance(module, DistributedDataParallel):
            return contextlib.nullcontext()
        return module.no_sync()

    def seed(self, seed: int, step: int) -> None:
        """Set the global generators (dropout and the like) as a function of (seed, step, rank)."""
        torch.manual_seed(mix(seed, step, self.rank))

    @contextlib.contextmanager
    def seeded(self, seed: int) -> Iterator[None]:
        """A forked, seeded RNG: fresh weights repeat, and nothing outside is disturbed."""
        with seeded(seed, self.device):
            yield

    def here(self) -> contextlib.AbstractContextManager[object]:
        """In another thread: work on this process's GPU, as the main thread does."""
        if simulates := simulated.current():
            return simulates.present()
        return torch.cuda.device(self.device) if self.device.type == "cuda" else contextlib.nullcontext()

    def shard(self, total: int) -> Shard:
        """The rows of a global batch that this process reads."""
        size = total // self.world
        return Shard(total, self.rank * size, (self.rank + 1) * size)

    def rng(self, seed: int, step: int, *, rows: int, part: int = 0, parts: int = 1) -> Rng:
        """Random numbers for one part of this process's `rows` rows of a batch."""
        size = rows // parts
        start = self.rank * rows + part * size
        return Rng(seed, step, total=rows * self.world, start=start, stop=start + size, device=self.device)

    def move(self, batch: dict[str, Any]) -> dict[str, Any]:
        """A batch with its tensors on the device."""
        return {
            k: v.to(self.device, non_blocking=True) if isinstance(v, Tensor) else v for k, v in batch.items()
        }

    def mean(self, value: Tensor) -> Tensor:
        """A value averaged over the processes."""
        if self.world == 1:
            return value
        value = value.detach().clone()
        torch.distributed.all_reduce(value)
        return value / self.world

    def gather(self, rows: Tensor) -> Tensor:
        """Rows of all processes in their order, with their gradients: a loss over all of them has the gradient of one process.

        Each process computes the whole loss; what it says of another's rows goes back to that one, and `wrap` takes the mean.
        """
        if self.world == 1:
            return rows
        return torch.cat(all_gather(rows.contiguous()))

    def any(self, flag: bool) -> bool:
        """Whether any process says yes; every process must ask."""
        return flag if self.world == 1 else bool(self.mean(torch.tensor(float(flag), device=self.device)) > 0)

    def wait(self) -> None:
        """Wait until every process is here."""
        self._state.wait_for_everyone()

    def close(self) -> None:
        """Leave the process group."""
        self._state.destroy_process_group()

    def memory(self) -> dict[str, float]:
        """Peak memory in GiB: of the GPU, or of the process on a CPU."""
        if self.device.type == "cuda":
            return {"memory_gib": torch.cuda.max_memory_allocated() / 2**30}
        if simulates := simulated.current():
            return {"memory_gib": simulates.here.highest / 2**30}
        import resource

        return {"memory_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}

    def reset_peak(self) -> None:
        """Start a new measurement of the peak (GPUs only; a process's own peak cannot be reset)."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        if simulates := simulated.current():
            simulates.here.reset()

    def facts(self) -> list[str]:
        """One line a fact, for the start of a run."""
        spread = ", weights sharded" if self.sharded else ""
        name = f"{torch.get_num_threads()} threads"
        if self.device.type == "cuda":
            name = torch.cuda.get_device_name()
        if self.device.type == "simulated":
            name = "computes nothing"
        return [
            f"device: {self.device.type} ({name}), {self.world} process{'es' if self.world > 1 else ''}{spread}",
            f"precision: {self.precision} (trained weights fp32)",
            f"attention: {self.attention} ({self.attention_reason})",
        ]


def _device(wanted: str) -> torch.device:
    if wanted == "simulated":
        return _simulated()
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wanted == "auto":
        wanted = next(name for name, there in present.items() if there)
    if not present[wanted]:
        there = ", ".join(name for name, ok in present.items() if ok)
        raise StudioError(
            f"Device {wanted!r} is not present on this machine; choose one of: {there}.",
            field="hardware.device",
        )
    return torch.device(wanted)


def _simulated() -> torch.device:
    if simulates := simulated.current():
        return simulates.device
    raise StudioError(
        "The simulated device computes nothing, so nothing can be trained or drawn on it; `studio plan` uses it: "
        "studio plan METHOD --model NAME --gpu 12GiB.",
        field="hardware.device",
    )


def _precision(wanted: str, device: torch.device) -> str:
    if wanted == "auto":
        there = device.type == "simulated" or (
            device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        )
        return "bf16" if there else "fp32"  # emulated, bf16 is slower than fp32
    if wanted == "fp16" and device.type == "cpu":
        raise StudioError(
            "Precision fp16 needs a GPU; choose --hardware.precision fp32 on a CPU.",
            field="hardware.precision",
        )
    return wanted


def _deterministic(wanted: bool) -> None:
    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads no other setting
    torch.use_deterministic_algorithms(wanted)
    torch.backends.cudnn.benchmark = not wanted
