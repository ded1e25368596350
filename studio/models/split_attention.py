"""torch's fused attention with a linear layer for each of its projections, so that adapters can sit on them.

`nn.MultiheadAttention`, which open_clip's towers use, keeps queries, keys and values in one matrix and never calls its output
layer, so an adapter reaches neither. `split` puts layers in its place that compute the same, `joined` puts the fused one back:
a saved network has the library's own names. Axes: `b` rows, `n` tokens, `m` tokens attended to, `h` heads, `d` width.
"""

import copy
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

PROJECTIONS = ("q_proj", "k_proj", "v_proj")


class SplitAttention(nn.Module):
    """Self-attention of linear layers, called as `nn.MultiheadAttention` is, rows first.

    Attributes:
        num_heads: Heads.
    """

    def __init__(self, fused: nn.MultiheadAttention) -> None:
        super().__init__()
        self.num_heads, biased = fused.num_heads, fused.in_proj_bias is not None
        for place, name in enumerate(PROJECTIONS):
            layer = nn.Linear(fused.embed_dim, fused.embed_dim, bias=biased, device="meta")
            layer.weight = nn.Parameter(fused.in_proj_weight.detach().chunk(3)[place].clone())
            if biased:
                layer.bias = nn.Parameter(fused.in_proj_bias.detach().chunk(3)[place].clone())
            setattr(self, name, layer)
        self.out_proj = nn.Linear(fused.embed_dim, fused.embed_dim, bias=fused.out_proj.bias is not None)
        self.out_proj.weight, self.out_proj.bias = fused.out_proj.weight, fused.out_proj.bias

    def forward(
        self,
        query: Float[Tensor, "b n d"],
        key: Float[Tensor, "b m d"],
        value: Float[Tensor, "b m d"],
        attn_mask: Tensor | None = None,
        **_: Any,
    ) -> tuple[Float[Tensor, "b n d"], None]:
        """What is attended to; the mask is added to the scores: (n m), or (b h) rows of it."""
        q, k, v = (
            rearrange(layer(x), "b n (h d) -> b h n d", h=self.num_heads)
            for layer, x in zip((self.q_proj, self.k_proj, self.v_proj), (query, key, value), strict=True)
        )
        if attn_mask is not None and attn_mask.ndim == 3:
            attn_mask = rearrange(attn_mask, "(b h) n m -> b h n m", h=self.num_heads)
        found = F.scaled_dot_product_attention(q, k, v, attn_mask=attn_mask)
        return self.out_proj(rearrange(found, "b h n d -> b n (h d)")), None


def split(network: nn.Module) -> None:
    """Put linear layers in the place of fused attention whose queries, keys and values are of one width and come rows first."""
    for owner in list(network.modules()):
        for name, child in list(owner.named_children()):
            if (
                isinstance(child, nn.MultiheadAttention)
                and child.batch_first
                and child.in_proj_weight is not None
            ):
                setattr(owner, name, SplitAttention(child))


def joined(network: nn.Module) -> nn.Module:
    """The network with fused attention again, a copy if there is any to be joined; it must have no adapters."""
    if not any(isinstance(module, SplitAttention) for module in network.modules()):
        return network
    twin = copy.deepcopy(network)
    for owner in list(twin.modules()):
        for name, child in list(owner.named_children()):
            if isinstance(child, SplitAttention):
                setattr(owner, name, _fused(child))
    return twin


@torch.no_grad()
def _fused(parts: SplitAttention) -> nn.MultiheadAttention:
    weights = [getattr(parts, name).weight for name in PROJECTIONS]
    biases = [getattr(parts, name).bias for name in PROJECTIONS]
    made = nn.MultiheadAttention(
        weights[0].shape[1],
        parts.num_heads,
        bias=biases[0] is not None,
        batch_first=True,
        device=weights[0].device,
    )
    made.in_proj_weight.copy_(torch.cat(weights))
    if made.in_proj_bias is not None:
        made.in_proj_bias.copy_(torch.cat(biases))
    made.out_proj.load_state_dict(parts.out_proj.state_dict())
    return made
