"""Style Aligned Image Generation via Shared Attention.

Amir Hertz, Andrey Voynov, Shlomi Fruchter, Daniel Cohen-Or 2023, arXiv 2312.02133, section 3.2.

    out = softmax(Q^ [K^; K_r]^T / sqrt(d)) [V; V_r],     Q^ = AdaIN(Q, Q_r),  K^ = AdaIN(K, K_r)

r is the leader, the first picture of the paper's batch.

Departure: the leader is named by its own prompt and seed and drawn beside the others. So a picture does not depend on
which others were drawn with it, and its recipe draws it alone. Axes: `b` rows of the denoiser (under guidance the
unconditional half first), `n m` tokens, `d` width of a head.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from einops import repeat
from jaxtyping import Float
from torch import Tensor
from typing_extensions import override

from studio.contracts.condition import Condition
from studio.contracts.sampling import AttentionFunction, PlainEdit, Request
from studio.diffusion.process import NUM_TIMESTEPS
from studio.models.attention import Ordinary
from studio.models.base import Family
from studio.models.companion import Features, features, image_layers, last
from studio.models.draw import trajectory
from trainers.shared_attention.config import SharedAttention

TINY = 1e-6


class SharedAttentionEdit(PlainEdit):
    """Adds the leader's keys and values to those of every picture."""

    def __init__(self, settings: SharedAttention, family: Family) -> None:
        self.settings, self._family = settings, family
        self._made_for: tuple[Any, ...] = ()
        self._leader: list[Tensor] = []
        self._cond: Condition
        self._times: list[float] = []
        self._layers: list[str] = []
        self._seen: dict[str, Features] = {}

    @override
    def begin(self, request: Request, scheduler: Any) -> None:
        """Draw the leader as the request says, and remember its way."""
        made_for = (
            request.height, request.width, request.steps, request.scheduler, request.guidance, request.negative,
        )  # fmt: skip
        if not self.settings.strength or made_for == self._made_for:
            return
        self._leader, self._cond = trajectory(self._family, request, self.settings.prompt, self.settings.seed)
        layers = image_layers(self._family, self._leader[0], self._cond.rows([0]))
        self._layers = last(layers, self.settings.share)
        self._times = [float(t) / NUM_TIMESTEPS for t in scheduler.timesteps]
        self._made_for = made_for

    @override
    def at(self, step: int) -> None:
        """Look at the leader at this step's noise."""
        if self._layers:
            x_t = self._leader[step].expand(len(self._cond), -1, -1, -1)
            self._seen = features(self._family, x_t, self._times[step], self._cond, self._layers)

    @override
    def attention(self, layer: str) -> AttentionFunction | None:
        """The leader's keys and values beside the layer's own."""
        return self._attend if layer in self._layers else None

    def _attend(
        self,
        query: Float[Tensor, "b heads n d"],
        key: Float[Tensor, "b heads m d"],
        value: Float[Tensor, "b heads m d"],
        *,
        layer: str,
        ordinary: Ordinary,
        **about: object,
    ) -> Float[Tensor, "b heads n d"]:
        del about
        picture = (
            slice(ordinary.text.stop, None) if ordinary.text.start == 0 else slice(0, ordinary.text.start)
        )
        theirs = Features(*(_for_rows(x, len(query))[:, :, picture] for x in _parts(self._seen[layer])))
        if self.settings.normalize:
            query = _aligned(query, theirs.query, picture)
            key = _aligned(key, theirs.key, picture)
        keys, values = torch.cat([key, theirs.key], dim=2), torch.cat([value, theirs.value], dim=2)
        return ordinary(
            query, keys, values, mask=self._mask(query, key.shape[2], theirs.key.shape[2], ordinary)
        )

    def _mask(self, query: Tensor, own: int, theirs: int, ordinary: Ordinary) -> Tensor | None:
        """log(strength) on the leader's logits, which multiplies its weights; None where it is 1."""
        if self.settings.strength == 1 and ordinary.mask is None:
            return None
        bias = math.log(self.settings.strength)
        given = (
            query.new_zeros(1, 1, query.shape[2], own)
            if ordinary.mask is None
            else _as_bias(ordinary.mask, query)
        )
        return F.pad(given, (0, theirs), value=bias)


def _parts(seen: Features) -> tuple[Tensor, Tensor, Tensor]:
    return seen.query, seen.key, seen.value


def _for_rows(x: Float[Tensor, "r heads n d"], rows: int) -> Float[Tensor, "b heads n d"]:
    """The leader's rows (under guidance two) for as many of the pictures each."""
    return repeat(x, "r heads n d -> (r k) heads n d", k=rows // len(x))


def _aligned(x: Float[Tensor, "b heads n d"], leader: Float[Tensor, "b heads m d"], picture: slice) -> Tensor:
    """AdaIN over the picture's tokens: the leader's mean and deviation of each feature."""
    part = x[:, :, picture]
    mean, std = part.mean(2, keepdim=True), part.std(2, keepdim=True, correction=0)
    theirs = leader.std(2, keepdim=True, correction=0)
    changed = x.clone()
    changed[:, :, picture] = theirs * (part - mean) / (std + TINY) + leader.mean(2, keepdim=True)
    return changed


def _as_bias(mask: Tensor, like: Tensor) -> Tensor:
    """A mask as something to add to logits."""
    if mask.dtype != torch.bool:
        return mask
    return torch.zeros_like(mask, dtype=like.dtype).masked_fill(~mask, -math.inf)
