"""Decoupled cross-attention and image projection (Ye et al. 2023, section 3.2).

Modules have the names and order of the authors' files: `image_proj`, and `ip_adapter` numbered as a U-Net's attention
processors (1, 3, 5 ...). Axes: `b` rows, `n` tokens, `d` width of text, `h` heads.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, assert_never

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from diffusers.models.attention import AttentionModuleMixin
from diffusers.models.attention_processor import Attention
from diffusers.models.embeddings import (
    ImageProjection,
    IPAdapterFullImageProjection,
    IPAdapterPlusImageProjection,
)
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from studio.errors import StudioError
from studio.models.attention import Ordinary
from studio.models.base import Family
from studio.models.presence import unwrap
from studio.models.vision_tower import Seen, VisionTower
from trainers.ip_adapter.config import Global, Patches, Plus, Projection

NUM_TOKENS = 4
"""Tokens of the global projection; diffusers reads no other number."""
HEAD, DEPTH = 64, 4
"""Width of a head and number of blocks of the resampler; diffusers reads no others."""


class IpLayer(nn.Module):
    """W'_k and W'_v of one layer, copies of the layer's own at first."""

    def __init__(self, own: Attention | AttentionModuleMixin) -> None:
        super().__init__()
        key, value = reads_text(own)
        self.to_k_ip = nn.Linear(key.in_features, key.out_features, bias=False)
        self.to_v_ip = nn.Linear(value.in_features, value.out_features, bias=False)
        with torch.no_grad():
            self.to_k_ip.weight.copy_(key.weight)
            self.to_v_ip.weight.copy_(value.weight)


def reads_text(own: Any) -> tuple[nn.Linear, nn.Linear]:
    """What makes keys and values of the text in a layer, inside of adapters on it."""
    layers = (own.add_k_proj, own.add_v_proj) if own.added_kv_proj_dim else (own.to_k, own.to_v)
    key, value = (dict(layer.named_children()).get("base_layer", layer) for layer in layers)
    return key, value


@dataclass(frozen=True)
class Shown:
    """What the rows of a pass look at, and how strongly."""

    tokens: Float[Tensor, "b n d"]
    strength: float


class IpNetwork(nn.Module):
    """Everything that an IP-Adapter trains."""

    def __init__(self, family: Family, tower: VisionTower, projection: Projection) -> None:
        """Start from the family's own keys and values."""
        super().__init__()
        sites = text_layers(family)
        width = reads_text(sites[0][1])[0].in_features
        self.image_proj = _projection(projection, tower, width)
        self.reads_patches = not isinstance(projection, Global)
        self.ip_adapter = nn.ModuleDict(
            {str(2 * number + 1): IpLayer(site) for number, (_, site) in enumerate(sites)}
        )
        self._keys = {name: str(2 * number + 1) for number, (name, _) in enumerate(sites)}

    def forward(self, seen: Seen) -> Float[Tensor, "b n d"]:
        """Image tokens c_i."""
        given = seen.tokens if self.reads_patches else seen.pooled
        return self.image_proj(given.float())

    @contextmanager
    def shown(self, family: Family, tokens: Float[Tensor, "b n d"], strength: float = 1.0) -> Iterator[None]:
        """Let every row of the denoiser's batch look at its own tokens."""
        attend = _Decoupled(self.ip_adapter, self._keys, Shown(tokens, strength))
        with family.attending_where(lambda name: attend if name in self._keys else None):
            yield


class _Decoupled:
    """Z = Attn(Q, K, V) + lambda Attn(Q, K', V'), before the output projection that both share (eq. 5)."""

    def __init__(self, layers: nn.ModuleDict, keys: dict[str, str], shown: Shown) -> None:
        self._layers, self._keys, self._shown = layers, keys, shown

    def __call__(
        self,
        query: Float[Tensor, "b h l e"],
        key: Float[Tensor, "b h m e"],
        value: Float[Tensor, "b h m e"],
        *,
        layer: str,
        scale: float,
        ordinary: Ordinary,
        **about: object,
    ) -> Float[Tensor, "b h l e"]:
        del about
        own = ordinary(query, key, value)
        if self._shown.strength == 0:
            return own
        ours: Any = self._layers[self._keys[layer]]
        heads, tokens, text = query.shape[1], self._shown.tokens, ordinary.text
        keys, values = (
            rearrange(project(tokens), "b n (h e) -> b h n e", h=heads).to(query.dtype)
            for project in (ours.to_k_ip, ours.to_v_ip)
        )
        if text.stop == 0:
            return own + self._shown.strength * F.scaled_dot_product_attention(
                query, keys, values, scale=scale
            )
        seen = F.scaled_dot_product_attention(query, F.rms_norm(keys, keys.shape[-1:]), values, scale=scale)
        of_picture = torch.ones_like(query[0, 0, :, :1])
        of_picture[text] = 0  # in joint attention, the picture's queries alone
        return own + self._shown.strength * of_picture * seen


def text_layers(family: Family) -> list[tuple[str, Any]]:
    """The layers in which a denoiser reads the text: a U-Net's in the order of its attention processors.

    Of FLUX the double blocks alone, whose text has keys of its own.

    Raises:
        StudioError: There are none: text and picture share their keys in every layer.
    """
    denoiser = unwrap(family.denoiser)
    layers = dict(denoiser.named_modules())
    if isinstance(denoiser, UNet2DConditionModel):
        names = [name.removesuffix(".processor") for name in denoiser.attn_processors]
        return [(name, layers[name]) for name in names if name.endswith("attn2")]
    attention = [(n, m) for n, m in layers.items() if isinstance(m, Attention | AttentionModuleMixin)]
    found = [(name, layer) for name, layer in attention if getattr(layer, "added_kv_proj_dim", None)]
    if not found:
        raise StudioError(
            f"IP-Adapter adds keys beside the text's, and in every layer of {family.card.title} text and picture share "
            "theirs; use a model whose text has keys of its own, such as SDXL, SD3 or FLUX.1.",
            field="model",
        )
    return found


def _projection(settings: Projection, tower: VisionTower, width: int) -> nn.Module:
    match settings:
        case Global():
            return ImageProjection(tower.pooled_width, width, NUM_TOKENS)
        case Plus(queries=queries, heads=heads, width=hidden):
            return IPAdapterPlusImageProjection(
                embed_dims=tower.width, output_dims=width, hidden_dims=hidden, depth=DEPTH, dim_head=HEAD,
                heads=heads, num_queries=queries,
            )  # fmt: skip
        case Patches():
            return IPAdapterFullImageProjection(tower.width, width)
        case _:
            assert_never(settings)


def dropped(
    chance: Float[Tensor, " b"], *, text: float, image: float, both: float
) -> tuple[Bool[Tensor, " b"], Bool[Tensor, " b"]]:
    """Which rows lose their text and which their picture, from uniform numbers."""
    no_text = (chance < text) | ((chance >= text + image) & (chance < text + image + both))
    no_image = (chance >= text) & (chance < text + image + both)
    return no_text, no_image
