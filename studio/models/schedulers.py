"""diffusers schedulers by their common names, made from a model's own scheduler settings."""

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    HeunDiscreteScheduler,
    LCMScheduler,
    LMSDiscreteScheduler,
    PNDMScheduler,
    UniPCMultistepScheduler,
)
from diffusers.schedulers.scheduling_utils import SchedulerMixin

from studio.diffusion.config import Prediction
from studio.errors import unknown

Entry = tuple[type[SchedulerMixin], dict[str, Any]]
_DISCRETE: dict[str, Entry] = {
    "ddim": (DDIMScheduler, {}),
    "ddpm": (DDPMScheduler, {}),
    "euler": (EulerDiscreteScheduler, {}),
    "euler_a": (EulerAncestralDiscreteScheduler, {}),
    "heun": (HeunDiscreteScheduler, {}),
    "lms": (LMSDiscreteScheduler, {}),
    "pndm": (PNDMScheduler, {"skip_prk_steps": True}),
    "lcm": (LCMScheduler, {}),
    "dpm++": (DPMSolverMultistepScheduler, {}),
    "dpm++_karras": (DPMSolverMultistepScheduler, {"use_karras_sigmas": True}),
    "dpm++_sde": (DPMSolverMultistepScheduler, {"algorithm_type": "sde-dpmsolver++"}),
    "unipc": (UniPCMultistepScheduler, {}),
}
_AS_FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True}
_FLOW: dict[str, Entry] = {
    "flow-euler": (FlowMatchEulerDiscreteScheduler, {}),
    "flow-heun": (FlowMatchHeunDiscreteScheduler, {}),
    "flow-dpm++": (DPMSolverMultistepScheduler, _AS_FLOW),
    "flow-unipc": (UniPCMultistepScheduler, _AS_FLOW),
}


def make_scheduler(
    base: Mapping[str, Any],
    name: str,
    steps: int,
    *,
    prediction: Prediction,
    mu: float | None = None,
    unit: bool = False,
) -> SchedulerMixin:
    """A scheduler set to a number of steps.

    Args:
        base: The model's own scheduler settings.
        name: Short name; empty takes ddim, or flow-euler for flow matching.
        steps: Sampler steps.
        prediction: What the network predicts.
        mu: Logarithm of the shift, for schedules that shift with the picture's size.
        unit: Give the flow-matching Euler the noise levels linspace(1, 1/n, n), as most pipelines do, and not n alone.

    Raises:
        StudioError: The name does not exist, or is not for this kind of model.
    """
    flow = prediction == "flow"
    table = _FLOW if flow else _DISCRETE
    name = name or ("flow-euler" if flow else "ddim")
    if name not in table:
        raise unknown("scheduler", name, table, field="scheduler")
    kind, changes = table[name]
    if steps == 1:  # there is no second level to stretch the schedule by
        base = {**base, "shift_terminal": None}
    scheduler = kind.from_config(_settings(kind, base, mu) | changes)
    if kind is FlowMatchEulerDiscreteScheduler and unit:
        options = {} if mu is None else {"mu": mu}
        scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps), **options)
    else:
        scheduler.set_timesteps(steps)
    return scheduler


def _settings(kind: type[SchedulerMixin], base: Mapping[str, Any], mu: float | None) -> dict[str, Any]:
    """What a scheduler takes of a model's settings, in its own words."""
    known = inspect.signature(kind.__init__).parameters
    taken = {key: value for key, value in base.items() if key in known}
    if "clip_sample" in known:
        taken.setdefault(
            "clip_sample", False
        )  # latents are not bounded by 1, as diffusers' default takes pixels to be
    if kind is FlowMatchEulerDiscreteScheduler:
        taken["shift"] = fixed_shift(base)
    else:
        if "use_dynamic_shifting" in known:
            taken["use_dynamic_shifting"] = False
        shift = fixed_shift(base) if mu is None else float(np.exp(mu))
        taken |= {key: shift for key in ("shift", "flow_shift") if key in known}
    return taken


def fixed_shift(base: Mapping[str, Any]) -> float:
    """The shift of a flow model's schedule, 1 where it has none: `shift`, or `flow_shift` as DPM-Solver and UniPC call it."""
    return float(base.get("shift", base.get("flow_shift") or 1.0))


def linear_mu(base: Mapping[str, Any], tokens: int) -> float:
    """Logarithm of the shift of a picture of so many tokens (diffusers' `calculate_shift`)."""
    low, high = base.get("base_image_seq_len", 256), base.get("max_image_seq_len", 4096)
    start, stop = base.get("base_shift", 0.5), base.get("max_shift", 1.15)
    return start + (tokens - low) * (stop - start) / (high - low)
