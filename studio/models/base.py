"""What every diffusion method talks to: a `Family`.

Axes: `b` batch, `l` text length, `d` width, `c h w` latent, `C H W` image. Images are in [-1, 1]. Times are
in [0, 1] with 1 = noise.
"""

import contextlib
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, DiffusionPipeline
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from studio.backend.core import Backend
from studio.backend.rng import Rng
from studio.contracts.condition import Condition
from studio.diffusion.config import Prediction
from studio.diffusion.process import NUM_TIMESTEPS, Process
from studio.errors import StudioError
from studio.models.attention import Choose, Function, attending
from studio.models.fingerprint import fingerprint
from studio.models.moments import Moments
from studio.models.schedulers import make_scheduler
from studio.settings.sampling import Text

_ASKED = ("force_zeros_for_empty_prompt",)
"""Options of a pipeline that change what its model says."""
_PIPELINE_OPTIONS = ("requires_safety_checker", *_ASKED)


class Family(ABC):
    """A text-to-image model behind a few verbs. Nothing outside `studio.models` asks which one it is.

    Attributes:
        name: sd1, sd2, sdxl, sd3 or flux.
        prediction: What `predict` returns.
        process: The noise process.
        denoiser: U-Net or transformer. A wrapped module may take its place.
        text_encoders, tokenizers: By diffusers' component names.
        vae: Autoencoder.
        size_multiple: Divides height and width of images, in pixels.
        default_size: Height and width the model was trained at, in pixels.
        distilled: Guidance is an input of the network, not a second pass.
    """

    name: str
    prediction: Prediction
    process: Process
    denoiser_name: str
    distilled: bool = False

    @property
    def patch(self) -> int:
        """Side of a token of the denoiser, in latents."""
        return 1

    @property
    def spare_axis(self) -> int:
        """Width of a position axis on which all tokens of a picture stand at 0; 0 if the family has none."""
        return 0

    def __init__(self, parts: DiffusionPipeline, backend: Backend, text: Text = Text()) -> None:
        """Take the modules of a diffusers pipeline."""
        components: dict[str, Any] = parts.components
        self.backend, self.text = backend, text
        self.pipeline_class, self.pipeline_config = type(parts), dict(parts.config)
        self.scheduler_base: SchedulerMixin = components["scheduler"]
        self.denoiser: nn.Module = components[self.denoiser_name]
        self.denoiser_config = self.denoiser.config
        self.vae: AutoencoderKL | AutoencoderTiny = components["vae"]
        self.text_encoders = {
            k: v for k, v in components.items() if k.startswith("text_encoder") and v is not None
        }
        self.tokenizers = {k: v for k, v in components.items() if k.startswith("tokenizer") and v is not None}
        self.vae_scale = 2 ** (len(self.vae.config.block_out_channels) - 1)
        self.size_multiple = self.vae_scale * self.patch
        self.default_size = self._default_size()
        self._components = components
        told = {key: self.pipeline_config[key] for key in _ASKED if key in self.pipeline_config}
        parts_of = {**self.modules(), **self.tokenizers, "scheduler": self.scheduler_base, "pipeline": told}
        self._fingerprints = {key: fingerprint(part) for key, part in parts_of.items()}

    def modules(self) -> dict[str, nn.Module]:
        """All networks by diffusers' component names, unwrapped."""
        parts = {self.denoiser_name: self.denoiser, **self.text_encoders, "vae": self.vae}
        return {key: unwrap(module) for key, module in parts.items()}

    @property
    def clip_encoders(self) -> dict[str, Any]:
        """The CLIP text encoders by component name: those that methods train and teach words; T5 never."""
        return {key: one for key, one in self.text_encoders.items() if "CLIP" in type(one).__name__}

    def fingerprint(self, *parts: str) -> str:
        """A hash of weights and settings (of all components, or of those named) as they were when loaded."""
        chosen = [self._fingerprints[part] for part in parts or sorted(self._fingerprints)]
        return hashlib.sha256("".join(chosen).encode()).hexdigest()[:16]

    def encode(self, images: Float[Tensor, "b C H W"], rng: Rng | None = None) -> Float[Tensor, "b c h w"]:
        """Latents of images in [-1, 1], scaled as the denoiser wants them: a sample with `rng`, the mode without."""
        return self.moments(images).sample(rng)

    def moments(self, images: Float[Tensor, "b C H W"]) -> Moments:
        """The distribution of the latents of images in [-1, 1], scaled as the denoiser wants them."""
        self.check_size(images.shape[-2], images.shape[-1])
        with self.present(self.vae), self.backend.exact():
            encoded = self.vae.encode(images.to(self.vae.device, self.vae.dtype))
        scale, shift = self.vae.config.scaling_factor, self.vae.config.shift_factor or 0.0
        if isinstance(self.vae, AutoencoderTiny):
            return Moments((encoded.latents.float() - shift) * scale)
        found = encoded.latent_dist
        return Moments((found.mode().float() - shift) * scale, found.std.float() * scale)

    def decode(self, latents: Float[Tensor, "b c h w"]) -> Float[Tensor, "b C H W"]:
        """Images in [-1, 1] of scaled latents."""
        latents = latents / self.vae.config.scaling_factor + (self.vae.config.shift_factor or 0.0)
        with self.present(self.vae), self.backend.exact():
            images = self.vae.decode(latents.to(self.vae.device, self.vae.dtype)).sample
        return images.float().clamp(-1, 1)

    @abstractmethod
    def embed(self, prompts: Sequence[str]) -> Condition:
        """Embedded prompts; gradients flow into a text encoder that trains."""

    def predict(
        self, x_t: Float[Tensor, "b c h w"], t: Float[Tensor, " b"], cond: Condition
    ) -> Float[Tensor, "b k h w"]:
        """The network's native prediction in float32."""
        with self.backend.autocast(), self.backend.kernel():
            return self._predict(x_t, t * NUM_TIMESTEPS, cond).float()

    @abstractmethod
    def _predict(
        self, x_t: Float[Tensor, "b c h w"], timestep: Float[Tensor, " b"], cond: Condition
    ) -> Float[Tensor, "b k h w"]:
        """`predict` with timesteps in [0, 1000]."""

    def attending(self, function: Function) -> contextlib.AbstractContextManager[None]:
        """Run every attention layer of the denoiser through `function`; see `studio.models.attention`."""
        return self.attending_where(lambda _layer: function)

    def attending_where(self, choose: Choose) -> contextlib.AbstractContextManager[None]:
        """Run attention through what `choose(layer name)` gives; None leaves a layer as it is."""
        return attending(unwrap(self.denoiser), choose, text_first=self.name == "flux")

    def scheduler(self, name: str, steps: int, *, height: int = 0, width: int = 0) -> SchedulerMixin:
        """A diffusers scheduler by short name (empty: the family's default), set to a number of steps.

        The size in pixels matters where the family shifts its schedule with it (0: the default size).
        """
        pixels = (height or self.default_size) * (width or self.default_size)
        tokens = pixels // (self.vae_scale * max(self.patch, 1)) ** 2
        base = self.scheduler_base.config
        return make_scheduler(base, name, steps, prediction=self.prediction, tokens=tokens)

    def pipeline(self) -> DiffusionPipeline:
        """A diffusers pipeline that shares the modules."""
        options = {key: self.pipeline_config[key] for key in _PIPELINE_OPTIONS if key in self.pipeline_config}
        return self.pipeline_class(**{**self._components, **self.modules(), **self.tokenizers, **options})

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """Channels, height and width of the latent of an image."""
        channels = int(self.vae.config.latent_channels)
        return channels, height // self.vae_scale, width // self.vae_scale

    def check_size(self, height: int, width: int) -> None:
        """Refuse a size that the model cannot draw."""
        for side, value in (("height", height), ("width", width)):
            if value <= 0 or value % self.size_multiple:
                lower = max(value // self.size_multiple, 1) * self.size_multiple
                raise StudioError(
                    f"The {side} of {value} px is not a positive multiple of {self.size_multiple}, as {self.name} "
                    f"needs; choose {lower} or {lower + self.size_multiple}.",
                    field=side,
                )

    def with_guidance(self, cond: Condition, scale: float) -> Condition:
        """The condition with the guidance scale that a distilled model reads; the same for other families."""
        if not self.distilled:
            return cond
        return cond.with_extra(guidance=torch.full((len(cond),), scale, device=cond.tokens.device))

    def with_sizes(self, cond: Condition, sizes: Int[Tensor, "b 6"] | None) -> Condition:
        """The condition with the sizes of a batch's pictures, for a family that reads them; the same for others."""
        del sizes
        return cond

    @contextlib.contextmanager
    def present(self, module: nn.Module) -> Iterator[None]:
        """Have a frozen module on the device while it works, and off it after, where offloading is asked for."""
        if not self.backend.hardware.offload or any(p.requires_grad for p in module.parameters()):
            yield
            return
        module.to(self.backend.device)
        try:
            yield
        finally:
            module.to("cpu")

    def _default_size(self) -> int:
        return int(self.denoiser_config.sample_size) * self.vae_scale


def unwrap(module: nn.Module) -> nn.Module:
    """The module inside a distributed wrapper."""
    return module.module if isinstance(module, DistributedDataParallel) else module
