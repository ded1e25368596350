"""Places that must compute in fp32 whatever the run's precision is."""

import contextlib

import torch


def full_precision(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Switch mixed precision off: sign gradients of attacks and angles near zero vanish in half precision."""
    return torch.autocast(device.type, enabled=False)
