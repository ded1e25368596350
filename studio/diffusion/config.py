"""Settings of the objective: how a timestep is drawn and how an error is measured. No torch here.

What `Custom` names, in each of the unions (a function, or a class whose instances are called so; neither remembers
anything between calls, so that a run resumes exactly):
    Times  (u (b), uniform in [0, 1)) -> times (b) in [0, 1], 1 = noise: the inverse of the distribution's CDF
    Error  (prediction (b ...), target (b ...)), both float32 -> errors (b ...), one an element, with a gradient
"""

from typing import Annotated, Literal

from pydantic import Field

from studio.settings.config import Fraction, config
from studio.settings.custom import Custom

Prediction = Literal["eps", "v", "flow", "x0"]
"""What a network predicts: noise, velocity (Salimans & Ho), eps - x0 (rectified flow), or the clean latent."""


@config
class NativeTimes:
    """As the family was trained: uniform for SD 1.x, 2.x and XL, logit-normal for SD3 and FLUX."""


@config
class UniformTimes:
    """Every noise level equally often."""


@config
class LogitNormalTimes:
    """Middle noise levels more often (Esser et al. 2024, eq. 19)."""

    mean: float = 0.0
    """Location; above 0 prefers noisy levels."""
    std: Annotated[float, Field(gt=0)] = 1.0
    """Width."""


@config
class ModeTimes:
    """Middle noise levels more often, with heavy tails (Esser et al. 2024, eq. 20)."""

    scale: Annotated[float, Field(ge=-1, le=1.75)] = 1.29
    """Strength; 0 is uniform."""


Times = NativeTimes | UniformTimes | LogitNormalTimes | ModeTimes | Custom


@config
class Mse:
    """Squared error."""


@config
class Huber:
    """Squared error for small differences, linear for large ones: less moved by outliers."""

    delta: Annotated[float, Field(gt=0)] = 0.1
    """Where it turns from squared to linear."""


@config
class SmoothL1:
    """Huber divided by its turning point, so that the linear part has slope one."""

    beta: Annotated[float, Field(gt=0)] = 0.1
    """Where it turns from squared to linear."""


Error = Mse | Huber | SmoothL1 | Custom


@config
class Denoising:
    """The denoising objective of a diffusion model."""

    times: Times = NativeTimes()
    """How noise levels are drawn; custom: (u (b), uniform in [0, 1)) -> times (b) in [0, 1]."""
    error: Error = Mse()
    """How a difference is measured; custom: (prediction (b ...), target (b ...)) -> errors (b ...)."""
    min_snr: Annotated[float, Field(ge=0)] = 0.0
    """Gamma of min-SNR weighting (Hang et al. 2023: 5); 0 switches it off."""
    noise_offset: Fraction = 0.0
    """Strength of a random constant added to the noise of each channel (Guttenberg 2023: 0.1); 0 adds none."""
    assistant: str = ""
    """LoRA that a distilled base (Turbo, schnell) is trained under and drawn without: a file, folder or hub name; empty is none."""
