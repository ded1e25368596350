"""The devices of this machine, each in one line, for reports."""

import platform

import psutil
import torch


def devices() -> dict[str, str]:
    """Name of each device torch can compute on, and what it is."""
    found = {"cpu": f"{platform.processor() or platform.machine()}, {psutil.cpu_count(logical=False)} cores"}
    if torch.backends.mps.is_available():
        found["mps"] = "Apple GPU"
    for index in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(index)
        found[f"cuda:{index}"] = (
            f"{facts.name}, {facts.total_memory / 2**30:.0f} GiB, capability {facts.major}.{facts.minor}"
        )
    return found


def best_device() -> torch.device:
    """The device that `auto` takes."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def can_compute(dtype: torch.dtype, device: torch.device) -> str:
    """Run a small matrix product; empty if it works, else the reason why not."""
    try:
        square = torch.ones(16, 16, device=device, dtype=dtype)
        product = (square @ square).float().mean().item()
    except (RuntimeError, NotImplementedError) as error:
        return str(error).splitlines()[0]
    return "" if product == 16.0 else f"16 ones sum up to {product}"
