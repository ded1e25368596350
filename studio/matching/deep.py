"""Learned tokens in several layers of both towers: MaPLe and PromptSRC.

    MaPLe      Khattak, Rasheed, Maaz, Khan, Khan, 2022, arXiv 2210.03117: P~_i = F_i(P_i), a linear map for each layer
    PromptSRC  Khattak, Wasim, Naseer, Khan, Yang, Khan, 2023, arXiv 2307.06948: both towers' tokens are free, and
               L = L_CE + 25 |g~ - g|_1 + 10 |f~ - f|_1 + KL(p~, p)      (section 3.2)

Departures: PromptSRC's Gaussian average over epochs is left to `optim.ema`, and its text diversity to `templates`.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from studio.matching.config import Coop, Maple, Promptsrc
from studio.matching.context import image_context
from studio.matching.coop import PromptMatcher
from studio.matching.matcher import Matcher
from studio.models.dual import DualEncoder

_SMALL = 0.02


class DeepMatcher(PromptMatcher):
    """Contexts in the first layers of both towers."""

    def __init__(
        self,
        model: DualEncoder,
        settings: Maple | Promptsrc,
        classes: Sequence[str],
        templates: Sequence[str],
    ) -> None:
        super().__init__(model, Coop(phrase=settings.phrase), classes)
        start = self.context.detach()[: settings.length]
        if len(start) < settings.length:
            more = _SMALL * torch.randn(settings.length - len(start), start.shape[1])
            start = torch.cat([start, more])
        self.context = nn.Parameter(start.clone())
        self.settings, self.frozen = settings, Matcher(model, templates)
        width, (deep_text, deep_image) = start.shape[1], self._depths(settings.depth)
        self.deep = nn.ParameterList(
            nn.Parameter(_SMALL * torch.randn(settings.length, width)) for _ in range(deep_text - 1)
        )
        if isinstance(settings, Maple):
            self.maps = nn.ModuleList(
                nn.Linear(width, model.width("image")) for _ in range(min(deep_text, deep_image))
            )
        else:
            self.image_deep = nn.ParameterList(
                nn.Parameter(_SMALL * torch.randn(settings.length, model.width("image")))
                for _ in range(deep_image)
            )

    def _depths(self, depth: int) -> tuple[int, int]:
        return min(depth, len(self.model.blocks("text"))), min(depth, len(self.model.blocks("image")))

    @override
    def layers(self, names: Sequence[str]) -> list[Tensor]:
        del names
        return [self.context, *self.deep]

    def image_layers(self) -> list[Float[Tensor, "m w"]]:
        """The image tower's tokens of each layer, the input first."""
        if isinstance(self.settings, Promptsrc):
            return list(self.image_deep)
        return [made(vectors) for made, vectors in zip(self.maps, self.layers(()), strict=False)]

    @override
    def images(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
        with image_context(self.model, self.image_layers()):
            return self.model.images(images)

    @override
    def learned(self) -> dict[str, nn.Parameter]:
        return {key: value for key, value in super().learned().items() if not key.startswith("frozen.")}

    @override
    def pull(
        self, features: Tensor, logits: Tensor, images: Tensor, names: Sequence[str]
    ) -> dict[str, Tensor]:
        settings = self.settings
        if isinstance(settings, Maple):
            return {}
        with torch.no_grad():
            seen, said = self.frozen.images(images), self.frozen.names(names)
            answers = self.model.logits(seen, said)
        kept = F.kl_div(logits.log_softmax(1), answers.log_softmax(1), reduction="sum", log_target=True)
        return {
            "text": settings.text_weight * (self.names(names) - said).abs().mean(),
            "image": settings.image_weight * (features - seen).abs().mean(),
            "answers": settings.logit_weight * kept / logits.numel(),
        }
