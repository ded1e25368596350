"""Which attention kernel works here, found by running each one."""

import contextlib
import importlib.util

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from studio.errors import StudioError

KERNELS = ("flash", "xformers", "sdpa", "math")


def probe(kernel: str, device: torch.device, dtype: torch.dtype) -> str:
    """Run a kernel once on tiny tensors; empty if it works, else the reason why not."""
    q = torch.zeros(1, 2, 16, 16, device=device, dtype=dtype)
    try:
        if kernel == "xformers":
            if importlib.util.find_spec("xformers") is None:
                return "xformers is not installed"
            from xformers.ops import memory_efficient_attention  # pyright: ignore[reportMissingImports]  # optional

            memory_efficient_attention(q.transpose(1, 2), q.transpose(1, 2), q.transpose(1, 2))
        elif kernel == "flash":
            if device.type != "cuda":
                return "needs an NVIDIA GPU"
            with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
                F.scaled_dot_product_attention(q, q, q)
        elif kernel == "math":
            with sdpa_kernel(SDPBackend.MATH):
                F.scaled_dot_product_attention(q, q, q)
        else:
            F.scaled_dot_product_attention(q, q, q)
    except (RuntimeError, ImportError, OSError, NotImplementedError, ValueError) as error:
        return str(error).splitlines()[0]
    return ""


def choose_attention(wanted: str, device: torch.device, dtype: torch.dtype) -> tuple[str, str]:
    """The kernel to use and the reason. An explicit choice that cannot work is an error."""
    if wanted != "auto":
        if reason := probe(wanted, device, dtype):
            raise StudioError(
                f"Attention kernel {wanted!r} does not work here ({reason}); choose --hardware.attention auto.",
                field="hardware.attention",
            )
        return wanted, "as asked"
    if device.type == "cuda" and not probe("flash", device, dtype):
        return "sdpa", "torch picks its flash kernel"
    return "sdpa", "torch's fused attention"


def forced_kernel(name: str) -> contextlib.AbstractContextManager[object]:
    """A context in which torch's fused attention runs this kernel only."""
    forced = {"flash": SDPBackend.FLASH_ATTENTION, "math": SDPBackend.MATH}
    return sdpa_kernel(forced[name]) if name in forced else contextlib.nullcontext()
