"""Stable Diffusion's chain of a thousand steps: its noise process, and times on its grid. Axes: `b` batch."""

from typing import Any

import torch
from diffusers import DDIMScheduler
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from jaxtyping import Float
from torch import Tensor

from studio.diffusion.config import Prediction
from studio.diffusion.process import Discrete
from studio.errors import unknown

_KINDS: dict[str, Prediction] = {"epsilon": "eps", "v_prediction": "v"}


def discrete_process(base: SchedulerMixin) -> tuple[Discrete, Prediction]:
    """Noise process and prediction kind that a model's scheduler settings describe."""
    kind = base.config.prediction_type
    if kind not in _KINDS:
        raise unknown("prediction type of the model's scheduler", kind, _KINDS)
    chain: Any = DDIMScheduler.from_config(base.config)
    return Discrete(chain.alphas_cumprod), _KINDS[kind]


def on_grid(timestep: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
    """Timesteps that rounding moved off a whole number, put back on it."""
    whole = timestep.round()
    return torch.where((timestep - whole).abs() < 1e-3, whole, timestep).clamp(max=999)
