"""Style Injection in Diffusion: A Training-free Approach for Adapting Large-scale Diffusion Models for Style Transfer.

Jiwoo Chung, Sangeek Hyun, Jae-Pil Heo, CVPR 2024, arXiv 2312.09008.

    Q~ = gamma Q_c + (1 - gamma) Q_cs                                             (eq. 6, query preservation)
    out = softmax(tau Q~ K_s^T / sqrt(d)) V_s                                     (eq. 5 and 7, keys and values of the style)
    z_T = sigma(z_s,T) (z_c,T - mu(z_c,T)) / sigma(z_c,T) + mu(z_s,T)             (eq. 8, AdaIN of the first latents)

c is the content, s the style, cs the picture being drawn. Content and style are inverted with an empty prompt.

Departures: statistics are one picture's own (the official code mixes those of a batch); inversion is refined, because a
model of few steps does not come back otherwise; Q_c, K_s and V_s are computed along the stored inversions at each step
instead of being stored for all of them; in joint attention (SD3, FLUX: experimental) text tokens keep their own.
Axes: `b` pictures, `c h w` latent, `n m` tokens, `d` width of a head.
"""

import copy
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from typing_extensions import override

from studio.backend.rng import Rng
from studio.contracts.condition import Condition
from studio.contracts.sampling import AttentionFunction, PlainEdit, Request
from studio.data.images import BadImageError, read
from studio.diffusion.process import NUM_TIMESTEPS
from studio.errors import StudioError
from studio.models.attention import Ordinary
from studio.models.base import Family
from studio.models.companion import Features, features, image_layers, invert, last
from studio.same_subject import references
from trainers.style_injection.config import StyleInjection

CONTENT, STYLE = slice(0, 1), slice(1, 2)
"""Rows of the two inverted pictures."""
TINY = 1e-6


class StyleInjectionEdit(PlainEdit):
    """Draws the content with the style's keys and values."""

    def __init__(self, settings: StyleInjection, family: Family) -> None:
        """Read both pictures.

        Raises:
            StudioError: One of them cannot be read.
        """
        self.settings, self._family = settings, family
        self._given = {name: _read(getattr(settings, name), name) for name in ("content", "style")}
        self._made_for: tuple[Any, ...] = ()
        self._inverted: list[Tensor] = []
        self._times: list[float] = []
        self._order: list[str] = []
        self._seen: dict[str, Features] = {}

    def again(self, settings: StyleInjection) -> "StyleInjectionEdit":
        """An edit of the same two pictures with other settings, which need not be inverted again."""
        other = copy.copy(self)
        other.settings, other._seen = settings, {}
        return other

    @property
    def _layers(self) -> list[str]:
        return last(self._order, self.settings.share)

    @override
    def begin(self, request: Request, scheduler: Any) -> None:
        """Invert both pictures along the sampler's steps.

        Raises:
            StudioError: Guidance is on, or the sampler cannot be run backwards.
        """
        if self._family.passes(request.guidance) > 1:
            raise StudioError(
                f"Style injection draws without guidance, but --guidance is {request.guidance:g}; set it to 1.",
                field="guidance",
            )
        made_for = (request.height, request.width, request.steps, request.scheduler)
        if made_for == self._made_for:
            return
        family, empty = self._family, self._empty(2)
        with torch.no_grad():
            given = [self._given[name] for name in ("content", "style")]
            pictures = references.tensors(given, request.height, request.width)
            latents = family.encode(pictures.to(family.backend.device))
        self._order = image_layers(family, latents[CONTENT], empty.rows([0]))
        self._inverted = invert(family, latents, empty, scheduler, refine=self.settings.refine)
        self._times = [float(t) / NUM_TIMESTEPS for t in scheduler.timesteps]
        self._made_for = made_for

    @override
    def at(self, step: int) -> None:
        """Look at both pictures at this step's noise."""
        if self._layers:
            self._seen = features(
                self._family, self._inverted[step], self._times[step], self._empty(2), self._layers
            )

    @override
    def condition(self, cond: Condition) -> Condition:
        """The empty prompt's condition: a prompt would lead away from what was inverted."""
        return self._empty(len(cond))

    @override
    def start(self, latents: Tensor, rng: Rng) -> Tensor:
        """The content's inverted latents in the style's statistics, in place of noise."""
        del rng
        content, style = self._inverted[0][CONTENT], self._inverted[0][STYLE]
        match self.settings.begin:
            case "adain":
                first = adain(content, style)
            case "content":
                first = content
            case "mixture":
                first = (content + style) / 2**0.5  # two independent noises: their mean would be too quiet
        return first.expand(len(latents), -1, -1, -1).to(latents)

    @override
    def attention(self, layer: str) -> AttentionFunction | None:
        """The style's keys and values in the last layers."""
        return self._attend if layer in self._layers else None

    def _attend(
        self,
        query: Float[Tensor, "b heads n d"],
        key: Float[Tensor, "b heads m d"],
        value: Float[Tensor, "b heads m d"],
        *,
        layer: str,
        scale: float,
        ordinary: Ordinary,
        **about: object,
    ) -> Float[Tensor, "b heads n d"]:
        del about
        seen, gamma = self._seen[layer], self.settings.preserve
        mixed = gamma * seen.query[CONTENT] + (1 - gamma) * query
        keys, values = (own[STYLE].expand(len(query), -1, -1, -1) for own in (seen.key, seen.value))
        if ordinary.text.stop:
            mixed, keys, values = (
                _with_text(new, old, ordinary.text)
                for new, old in ((mixed, query), (keys, key), (values, value))
            )
        # A mask of an edit before this one is for keys that are not asked any more.
        mask = None if ordinary.mask is None else query.new_zeros(1, 1, query.shape[2], keys.shape[2])
        return ordinary(mixed, keys, values, mask=mask, scale=self.settings.temperature * scale)

    def _empty(self, count: int) -> Condition:
        with torch.no_grad():
            return self._family.with_guidance(self._family.embed([""]).repeat(count), 1.0)


def adain(content: Float[Tensor, "b c h w"], style: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    """The content with the style's mean and deviation of each channel, picture by picture (eq. 8)."""

    def statistics(x: Tensor) -> tuple[Tensor, Tensor]:
        return x.mean((2, 3), keepdim=True), x.std((2, 3), keepdim=True, correction=0)

    (mu_c, sigma_c), (mu_s, sigma_s) = statistics(content), statistics(style)
    return sigma_s * (content - mu_c) / (sigma_c + TINY) + mu_s


def _with_text(new: Tensor, old: Tensor, text: slice) -> Tensor:
    """New rows for the picture's tokens, old ones for the text's."""
    changed = new.clone()
    changed[:, :, text] = old[:, :, text]
    return changed


def _read(path: str, field: str) -> Image.Image:
    """An upright RGB picture, transparency over white."""
    try:
        return read(Path(path).expanduser()).rgb
    except BadImageError as error:
        raise StudioError(
            f"Cannot use the {field} picture {path!r}: it {error.reason}; give another file.", field=field
        ) from None
