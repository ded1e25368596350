"""A text-to-image model as a policy: each sampler step is an action.

Axes: `b` transitions, `c h w` latent.
"""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from studio.adapters.strength import detached
from studio.contracts.condition import Condition
from studio.diffusion.guidance import Guidance
from studio.models.base import Family
from studio.models.denoising import Prompts
from studio.models.draw import guided
from studio.rl.config import Sampler
from studio.rl.stepper import stepper

Conditions = tuple[Condition, Condition | None]


class Policy:
    """Gaussians over the next latent, as the present weights have them.

    Embeddings are computed once while no text encoder trains; else once a call for each distinct prompt.
    """

    def __init__(
        self,
        family: Family,
        trained: Mapping[str, nn.Module],
        settings: Sampler,
        *,
        freeze_uncond: bool = False,
        setting: str = "rollouts",
    ) -> None:
        """Take the model, what trains of it, and how it samples.

        Args:
            family: The model.
            trained: Modules with adapters, by component name.
            settings: Sampler.
            freeze_uncond: Let the unconditional prompt keep the base model's embedding.
            setting: Name of the sampler among the method's settings.

        Raises:
            StudioError: The model cannot draw pictures of its size.
        """
        self.family, self.trained, self.guidance = family, trained, settings.guidance
        side = settings.size or family.default_size
        family.check_size(side, side, f"{setting}.size" if settings.size else "")
        self.stepper = stepper(family, settings.steps, noise=settings.noise, size=settings.size)
        self._trains_text = any(key in family.text_encoders for key in trained)
        self._freeze_uncond = freeze_uncond or not self._trains_text
        self._kept = Prompts(family, trains=False)
        self._second = family.passes(settings.guidance) > 1

    def conditions(self, prompts: Sequence[str]) -> Conditions:
        """Embeddings of the prompts, and the unconditional ones where guidance needs them."""
        distinct = list(dict.fromkeys(prompts))
        adapted = self._second and not self._freeze_uncond
        embed = self.family.embed if self._trains_text else self._kept
        found = embed([*distinct, *([""] if adapted else [])])
        cond = found.rows([distinct.index(prompt) for prompt in prompts])
        cond = self.family.with_guidance(cond, self.guidance)
        if not self._second:
            return cond, None
        empty = found.rows([len(distinct)]) if adapted else self._unconditional()
        return cond, empty.repeat(len(prompts))

    def _unconditional(self) -> Condition:
        """The base model's embedding of the empty prompt."""
        with torch.no_grad(), detached(self.trained):
            return self._kept([""])

    def predict(
        self, x_t: Float[Tensor, "b c h w"], k: Int[Tensor, " b"], conditions: Conditions
    ) -> Float[Tensor, "b c h w"]:
        """The guided prediction at sampler steps `k`."""
        cond, uncond = conditions
        t = self.stepper.times.to(x_t.device)[k]
        return guided(self.family, x_t, t, cond=cond, uncond=uncond, guidance=Guidance(self.guidance))

    def gaussian(
        self, x_t: Float[Tensor, "b c h w"], k: Int[Tensor, " b"], conditions: Conditions
    ) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, " b"]]:
        """Mean and standard deviation of the latents after sampler steps `k`."""
        return self.stepper.gaussian(self.predict(x_t, k, conditions), x_t, k)

    def base_gaussian(
        self, x_t: Float[Tensor, "b c h w"], k: Int[Tensor, " b"], prompts: Sequence[str]
    ) -> Float[Tensor, "b c h w"]:
        """Mean of the same as the base model has it."""
        with torch.no_grad(), detached(self.trained):
            return self.gaussian(x_t, k, self.conditions(prompts))[0]
