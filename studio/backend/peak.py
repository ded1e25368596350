"""Peak memory and time of a piece of work, on a GPU or in the process."""

import gc
import threading
import time
from types import TracebackType

import psutil
import torch

from studio.errors import StudioError

_GIB = 2**30
_SECONDS_BETWEEN_LOOKS = 0.005


def limit_gib(device: torch.device) -> float:
    """Memory that this process may fill: of the GPU, or what the machine has left plus what the process holds."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory / _GIB
    return (psutil.virtual_memory().available + psutil.Process().memory_info().rss) / _GIB


def free_gib() -> float:
    """Memory that nobody uses of this machine's GPU.

    Raises:
        StudioError: There is no GPU.
    """
    if not torch.cuda.is_available():
        raise StudioError(
            "--gpu auto needs a GPU, and this machine has none; give a size, such as --gpu 12GiB.",
            field="gpu",
        )
    return torch.cuda.mem_get_info()[0] / _GIB


def release(device: torch.device) -> None:
    """Give back memory that nothing refers to any more."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


class Peak:
    """A context that measures `seconds` and the highest `gib` held inside it, by anything on the device.

    On a GPU torch's allocator knows the peak. A process has no peak that can be reset, so a thread looks at its
    resident memory every five milliseconds; what is held for less can be missed.
    """

    def __init__(self, device: torch.device) -> None:
        self.device, self.gib, self.seconds = device, 0.0, 0.0
        self._ended = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="peak", daemon=True)

    def __enter__(self) -> "Peak":
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            self._watcher.start()
        self._start = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            self.gib = torch.cuda.max_memory_allocated(self.device) / _GIB
        else:
            self._ended.set()
            self._watcher.join()
        self.seconds = time.perf_counter() - self._start

    def _watch(self) -> None:
        process = psutil.Process()
        while True:
            self.gib = max(self.gib, process.memory_info().rss / _GIB)
            if self._ended.wait(_SECONDS_BETWEEN_LOOKS):
                return
