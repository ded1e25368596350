"""What every diffusion method talks to: a `Family`.

Axes: `b` batch, `l` text length, `d` width, `c h w` latent, `C H W` image. Images are in [-1, 1]. Times are
in [0, 1] with 1 = noise.
"""

import contextlib
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from diffusers import DiffusionPipeline
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor, nn

from studio.backend.core import Backend
from studio.backend.rng import Rng
from studio.catalog.family import FamilyCard, Variant
from studio.contracts.condition import Condition
from studio.diffusion.config import Prediction
from studio.diffusion.guidance import Guidance, classifier_free, rescale
from studio.diffusion.process import NUM_TIMESTEPS, Flow, Process
from studio.errors import StudioError
from studio.models.attention import Choose, Function, Layout, attending, checkpointed
from studio.models.chain import discrete_process
from studio.models.codecs import codec_of
from studio.models.fingerprint import fingerprint
from studio.models.kind import card_of
from studio.models.moments import Moments
from studio.models.presence import Presence, unwrap
from studio.models.schedulers import fixed_shift, linear_mu, make_scheduler
from studio.settings.sampling import Text

_ASKED = ("force_zeros_for_empty_prompt", "is_distilled", "text_encoder_select_layers")
"""Options of a pipeline that change what its model says."""
_PIPELINE_OPTIONS = ("requires_safety_checker", "patch_size", *_ASKED)


class Family(ABC):
    """A text-to-image model behind a few verbs. Nothing outside `studio.models` asks which one it is.

    Attributes:
        card: The facts of the family.
        variant: The published model that it is or was made from, where that is known.
        name: Its name.
        prediction: What `predict` returns.
        process: The noise process.
        denoiser: U-Net or transformer. A wrapped module may take its place.
        text_encoders, tokenizers: By diffusers' component names.
        vae, codec: Autoencoder, and what its latents are scaled by.
        size_multiple: Divides height and width of images, in pixels.
        default_size: Height and width the model was trained at, in pixels.
    """

    card: FamilyCard
    variant: Variant | None = None
    prediction: Prediction
    process: Process

    @property
    def patch(self) -> int:
        """Side of a token of the denoiser, in latents."""
        return 1

    @property
    def spare_axis(self) -> int:
        """Width of a position axis on which all tokens of a picture stand at one place; 0 if the family has none."""
        return 0

    def __init__(self, parts: DiffusionPipeline, backend: Backend, text: Text = Text()) -> None:
        """Take the modules of a diffusers pipeline.

        Raises:
            StudioError: No family has pipelines of this kind.
        """
        components: dict[str, Any] = parts.components
        self.card = getattr(self, "card", None) or card_of(parts)
        self.name, self.denoiser_name = self.card.name, self.card.denoiser
        self.backend, self.text = backend, text
        self.pipeline_class, self.pipeline_config = type(parts), dict(parts.config)
        self.scheduler_base: SchedulerMixin = components["scheduler"]
        self.denoiser: nn.Module = components[self.denoiser_name]
        self.denoiser_config = self.denoiser.config
        self.vae: Any = components["vae"]
        self.text_encoders = {
            k: v for k, v in components.items() if k.startswith("text_encoder") and v is not None
        }
        self.tokenizers = {k: v for k, v in components.items() if k.startswith("tokenizer") and v is not None}
        self.codec = codec_of(self.vae)
        self.vae_scale, (self.process, self.prediction) = self.codec.scale, self._noise()
        self.size_multiple, self.default_size = self.vae_scale * self.patch, self._default_size()
        self._components, self._presence = components, Presence(backend.device)
        told = {key: self.pipeline_config[key] for key in _ASKED if key in self.pipeline_config}
        parts_of = {**self.modules(), **self.tokenizers, "scheduler": self.scheduler_base, "pipeline": told}
        self._fingerprints = {key: fingerprint(part) for key, part in parts_of.items()}

    def modules(self) -> dict[str, nn.Module]:
        """All networks by diffusers' component names, unwrapped."""
        parts = {self.denoiser_name: self.denoiser, **self.text_encoders, "vae": self.vae}
        return {key: unwrap(module) for key, module in parts.items()}

    @property
    def clip_encoders(self) -> dict[str, Any]:
        """The CLIP text encoders by component name: those that methods train and teach words; others never."""
        return {key: self.text_encoders[key] for key in self.card.words.trains if key in self.text_encoders}

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
            return self.codec.moments(images.to(self.vae.device))

    def decode(self, latents: Float[Tensor, "b c h w"]) -> Float[Tensor, "b C H W"]:
        """Images in [-1, 1] of scaled latents."""
        if latents.requires_grad and torch.is_grad_enabled():
            self.hold("vae")  # the gradient comes back through it
        with self.present(self.vae), self.backend.exact():
            images = self.codec.decode(latents.float().to(self.vae.device))
        return images.float().clamp(-1, 1)

    @abstractmethod
    def embed(self, prompts: Sequence[str]) -> Condition:
        """Embedded prompts; gradients flow into a text encoder that trains."""

    def embed_with(
        self, prompts: Sequence[str], references: Sequence[Image.Image], height: int, width: int
    ) -> Condition:
        """Embedded prompts beside pictures that the family looks at by itself, for drawing at a size in pixels.

        Raises:
            StudioError: It looks at none, or at fewer.
        """
        del prompts, height, width
        raise StudioError(
            f"{len(references)} reference pictures were given, and {self.card.title} looks at none by itself; leave "
            "them out, or draw with an artifact that takes some.",
            field="reference",
        )

    def check_references(self, references: Sequence[Image.Image], what: str) -> None:
        """Refuse more or fewer references than the family looks at."""
        if len(references) != (wanted := self.card.references):
            raise StudioError(
                f"{len(references)} reference pictures were given, and {self.card.title} looks at {wanted}: {what}; give "
                "--reference that many files.",
                field="reference",
            )

    def checkpointed(self, block: nn.Module, *inputs: Any) -> Any:
        """Run a block of the denoiser without keeping its activations."""
        return checkpointed(block, *inputs)

    def predict(
        self, x_t: Float[Tensor, "b c h w"], t: Float[Tensor, " b"], cond: Condition
    ) -> Float[Tensor, "b k h w"]:
        """The network's native prediction in float32."""
        with self.present(unwrap(self.denoiser)), self.backend.autocast(), self.backend.kernel():
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
        layers = self.card.layers
        layout = Layout(layers.text, layers.text_only, layers.image_only, self._text_length)
        return attending(unwrap(self.denoiser), choose, layout)

    def _text_length(self, call: Mapping[str, Any]) -> int:
        """Tokens of text in a call of the denoiser."""
        return int(call["encoder_hidden_states"].shape[1])

    def scheduler(self, name: str, steps: int, *, height: int = 0, width: int = 0) -> SchedulerMixin:
        """A diffusers scheduler by short name (empty: the family's default), set to a number of steps.

        The size in pixels matters where the family shifts its schedule with it (0: the default size).
        """
        pixels = (height or self.default_size) * (width or self.default_size)
        tokens = pixels // (self.vae_scale * max(self.patch, 1)) ** 2
        base = self.scheduler_base.config
        mu = self._mu(tokens, steps) if base.get("use_dynamic_shifting") else None
        return make_scheduler(
            base, name, steps, prediction=self.prediction, mu=mu, unit=self.card.schedule.sigmas == "unit"
        )

    def _mu(self, tokens: int, steps: int) -> float:
        """Logarithm of the shift of a picture of so many tokens, for families that shift with the size."""
        del steps
        return linear_mu(self.scheduler_base.config, tokens)

    def pipeline(self) -> DiffusionPipeline:
        """A diffusers pipeline that shares the modules."""
        options = {key: self.pipeline_config[key] for key in _PIPELINE_OPTIONS if key in self.pipeline_config}
        tokenizers = {key: self.tokenizers[key] for key in self.tokenizers if key in self._components}
        return self.pipeline_class(**{**self._components, **self.modules(), **tokenizers, **options})

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """Channels, height and width of the latent of an image."""
        return self.codec.channels, height // self.vae_scale, width // self.vae_scale

    def check_size(self, height: int, width: int, setting: str = "") -> None:
        """Refuse a size that the model cannot draw.

        Args:
            height: In pixels.
            width: In pixels.
            setting: The one that names both, such as rollouts.size; empty where they are settings of their own.

        Raises:
            StudioError: Names the setting, and the nearest sizes.
        """
        for side, value in (("height", height), ("width", width)):
            if value <= 0 or value % self.size_multiple:
                lower = max(value // self.size_multiple, 1) * self.size_multiple
                raise StudioError(
                    f"{setting or f'The {side}'} of {value} px is not a positive multiple of {self.size_multiple}, as "
                    f"{self.name} needs; choose {lower} or {lower + self.size_multiple}.",
                    field=setting or side,
                )

    def passes(self, scale: float) -> int:
        """Passes of the denoiser that guidance of this scale takes: two, or one where it is off, built in or an input."""
        return 2 if scale > 1 and self.reads_negative else 1

    @property
    def reads_negative(self) -> bool:
        """Whether guidance compares with an unconditional or negative prompt."""
        return self.card.guidance != "input"

    def guide(
        self,
        conditional: Float[Tensor, "b c h w"],
        unconditional: Float[Tensor, "b c h w"],
        guidance: Guidance,
    ) -> Float[Tensor, "b c h w"]:
        """One prediction of two."""
        return rescale(classifier_free(conditional, unconditional, guidance.scale), conditional, guidance.phi)

    def with_guidance(self, cond: Condition, scale: float) -> Condition:
        """The condition with the guidance scale, where the network reads it; the same for other families."""
        if self.card.guidance != "input":
            return cond
        return cond.with_extra(guidance=torch.full((len(cond),), scale, device=cond.tokens.device))

    def with_sizes(self, cond: Condition, sizes: Int[Tensor, "b 6"] | None) -> Condition:
        """The condition with the sizes of a batch's pictures, for a family that reads them; the same for others."""
        del sizes
        return cond

    def rest(self, *parts: str) -> None:
        """Have frozen parts, by component name, on the device only while they work."""
        self._presence.rest(*map(self.modules().__getitem__, parts))

    def hold(self, *parts: str) -> None:
        """Have parts on the device for good: what trains, and what a step's gradient goes back through."""
        self._presence.hold(*map(self.modules().__getitem__, parts))

    def make_room(self) -> None:
        """Have the denoiser off the device until it predicts, where parts rest: encoders need not stand beside it."""
        if self.backend.hardware.offload:
            self._presence.make_room(unwrap(self.denoiser))

    def present(self, *modules: nn.Module) -> contextlib.AbstractContextManager[None]:
        """Have parts on the device while they work."""
        return self._presence.present(*modules)

    def _noise(self) -> tuple[Process, Prediction]:
        """The noise process and the kind of prediction, as the card and the scheduler's settings have them."""
        if self.card.process == "discrete":
            return discrete_process(self.scheduler_base)
        own, base = self.card.schedule.training_shift, self.scheduler_base.config
        fixed = 1.0 if base.get("use_dynamic_shifting") else fixed_shift(base)
        return Flow(fixed if own is None else own), "flow"

    def _default_size(self) -> int:
        """Side of the pictures of the training: where no part of the model says it, the card's."""
        if own := self.denoiser_config.get("sample_size"):
            return int(own) * self.vae_scale
        return int(self.vae.config.get("sample_size") or self.card.variants[0].size)
