"""Concept encoder, patch encoder and gated adapter layers of InstantBooth (Shi et al. 2023, sections 3.2 and 3.3).

Axes: `b` rows, `n` tokens, `l` positions, `c` width of a block, `d` width of text, `k` pictures.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.attention import BasicTransformerBlock, JointTransformerBlock
from einops import rearrange, reduce
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from studio.contracts.condition import Condition
from studio.errors import StudioError
from studio.models.base import Family
from studio.models.presence import unwrap
from studio.models.vision_tower import Seen, VisionTower
from trainers.instantbooth.places import features, grid, layer_for

Block = BasicTransformerBlock | JointTransformerBlock
"""Of a U-Net, and of SD3's transformer."""


class GatedAdapter(nn.Module):
    """y + beta tanh(gamma) S([y, f_p]); only the rows of y are kept.

    S: a linear layer for the patches, a norm, self-attention that starts as the block's own, no feed-forward.
    """

    def __init__(self, block: Block, width: int, tokens: int = 0) -> None:
        """Start from a block.

        Args:
            block: Whose self-attention is copied; of joint attention, the picture's side.
            width: Of the patch tokens.
            tokens: Patch tokens of one view, to tell queries and keys where they stand; 0 leaves that to the encoder.
        """
        super().__init__()
        own: Any = block.attn1 if isinstance(block, BasicTransformerBlock) else block.attn
        self.heads = own.heads
        channels = _plain(own.to_q).in_features
        self.patches = nn.Linear(width, channels)
        self.norm = nn.LayerNorm(channels)
        self.to_q, self.to_k, self.to_v, self.to_out = (
            _copied(_plain(layer)) for layer in (own.to_q, own.to_k, own.to_v, own.to_out[0])
        )
        self.norm_q, self.norm_k = _copied_norm(own.norm_q), _copied_norm(own.norm_k)
        self.tokens = tokens
        self.place = layer_for(self.to_q) if tokens else None
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(
        self,
        y: Float[Tensor, "b l c"],
        f_p: Float[Tensor, "b n d"],
        beta: Float[Tensor, " b"],
        shape: Sequence[int] = (1, 1),
    ) -> Float[Tensor, "b l c"]:
        """What is added to y, whose picture has a shape (h, w) in any unit."""
        both = self.norm(torch.cat([y, self.patches(f_p).to(y.dtype)], dim=1))
        query, key, value = self.to_q(both[:, : y.shape[1]]), self.to_k(both), self.to_v(both)
        if self.place is not None:
            cells, views = y.shape[1], f_p.shape[1] // self.tokens
            where = self.place(features(grid(cells, shape), self.tokens, views, y.shape[2]).to(both))
            query, key = query + where[:cells], key + where
        query, key, value = (rearrange(x, "b n (h e) -> b h n e", h=self.heads) for x in (query, key, value))
        seen = F.scaled_dot_product_attention(self.norm_q(query), self.norm_k(key), value)
        seen = rearrange(seen, "b h n e -> b n (h e)")
        return (beta[:, None, None] * torch.tanh(self.gamma) * self.to_out(seen)).to(y.dtype)


def _plain(layer: Any) -> nn.Linear:
    """A layer, or the one that an adapter wraps."""
    return dict(layer.named_children()).get("base_layer", layer)


def _copied(layer: nn.Linear) -> nn.Linear:
    """A trainable layer that starts as another, in full precision."""
    made = nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None)
    made.load_state_dict(layer.state_dict())
    return made


def _copied_norm(norm: Any) -> nn.Module:
    """The same for the norm of queries or keys, which U-Nets do without."""
    if norm is None:
        return nn.Identity()
    made = nn.RMSNorm(norm.weight.shape[0], eps=norm.eps)
    made.load_state_dict(norm.state_dict())
    return made


@dataclass(frozen=True)
class Subject:
    """What references say: f_c and f_p."""

    concept: Float[Tensor, "b d"]
    patches: Float[Tensor, "b n d"]


class InstantNetwork(nn.Module):
    """Everything that InstantBooth trains, and its place in a denoiser."""

    def __init__(
        self, family: Family, tower: VisionTower, blocks: str = "", *, positions: bool = False
    ) -> None:
        """Fresh layers.

        Args:
            family: Where the adapters go.
            tower: Whose output is read.
            blocks: Pattern of the blocks that get an adapter; empty for all.
            positions: Tell the adapters' queries and keys where they stand.

        Raises:
            StudioError: The family has no such transformer blocks, or the pattern fits none.
        """
        super().__init__()
        found = transformer_blocks(family, blocks)
        with torch.no_grad():
            width = family.embed([""]).tokens.shape[-1]
        self.concept_fc = nn.Linear(tower.pooled_width, width)
        self.patch_fc = nn.Linear(tower.width, width)
        tokens = tower.num_tokens if positions else 0
        self.adapters = nn.ModuleDict(
            {name.replace(".", "/"): GatedAdapter(block, width, tokens) for name, block in found.items()}
        )

    def forward(self, seen: Seen, pictures: int = 1) -> Subject:
        """Subjects from so many pictures each, which lie side by side: f_c averaged, f_p in a row."""
        concept = self.concept_fc(seen.pooled.float())
        patches = self.patch_fc(F.layer_norm(seen.tokens.float(), seen.tokens.shape[-1:]))
        return Subject(
            reduce(concept, "(b k) d -> b d", "mean", k=pictures),
            rearrange(patches, "(b k) n d -> b (k n) d", k=pictures),
        )

    def names(self, part: str) -> frozenset[str]:
        """Parameters of `fc`, `gate` or `adapter`."""
        kinds: dict[str, Callable[[str], bool]] = {
            "gate": lambda name: name.endswith("gamma"),
            "fc": lambda name: not name.startswith("adapters."),
            "adapter": lambda name: name.startswith("adapters.") and not name.endswith("gamma"),
        }
        return frozenset(name for name, _ in self.named_parameters() if kinds[part](name))

    def gates(self) -> Float[Tensor, " a"]:
        """tanh(gamma) of every adapter."""
        return torch.stack(
            [value.tanh() for name, value in self.named_parameters() if name.endswith("gamma")]
        )

    @contextmanager
    def on(
        self, family: Family, patches: Float[Tensor, "b n d"], beta: Float[Tensor, " b"]
    ) -> Iterator[None]:
        """Have the adapters work in every pass of the denoiser: row i with its own patches and weight."""
        denoiser = unwrap(family.denoiser)
        layers, shape = dict(denoiser.named_modules()), [1, 1]

        def measure(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            given = (*args, *kwargs.values())
            shape[:] = next(x.shape[-2:] for x in given if torch.is_tensor(x) and x.ndim == 4)

        hooks: list[Any] = [denoiser.register_forward_pre_hook(measure, with_kwargs=True)]
        for name, adapter in self.adapters.items():
            added = partial(adapter, f_p=patches, beta=beta, shape=shape)
            hooks += _attached(layers[name.replace("/", ".")], added)
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()


def _attached(block: Any, added: Callable[[Tensor], Tensor]) -> list[Any]:
    """Hooks that make y + added(y) of what a block reads the text with.

    In a U-Net's block, y comes from self-attention, which is added to what came in. In joint attention the picture
    reads itself and the text at once, so y is what comes in.
    """
    entered: list[Tensor] = []

    def remember(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        del module
        entered[:] = [args[0] if args else kwargs["hidden_states"]]

    def add(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        del module, args
        return output + added(entered.pop() + output)

    def precede(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        del module
        y = args[0] if args else kwargs["hidden_states"]
        found = y + added(y)
        return ((found, *args[1:]), kwargs) if args else (args, kwargs | {"hidden_states": found})

    if isinstance(block, JointTransformerBlock):
        return [block.register_forward_pre_hook(precede, with_kwargs=True)]
    return [
        block.register_forward_pre_hook(remember, with_kwargs=True),
        block.attn1.register_forward_hook(add),
    ]


def transformer_blocks(family: Family, pattern: str = "") -> dict[str, Block]:
    """Blocks of a U-Net with self- and cross-attention, or of SD3's transformer, by name.

    Raises:
        StudioError: The family has none, or the pattern fits none.
    """
    denoiser = unwrap(family.denoiser)
    blocks = {n: m for n, m in denoiser.named_modules() if isinstance(m, Block)}
    if not blocks:
        raise StudioError(
            f"InstantBooth has layers for the blocks of U-Nets and of SD3, and {family.name} has others; use ip_adapter "
            "there.",
            field="model",
        )
    found = {name: block for name, block in blocks.items() if re.search(pattern, name)}
    if not found:
        raise StudioError(
            f"blocks {pattern!r} fits none of the transformer blocks; they are called {', '.join(blocks)}.",
            field="blocks",
        )
    return found


def placed(
    cond: Condition, ids: list[int], concept: Float[Tensor, "b d"], alpha: float = 1.0
) -> tuple[Condition, Bool[Tensor, " b"]]:
    """The condition with alpha f_c in the rows of the placeholder, and which prompts have one.

    The rows behind it were computed with the word itself in view (CLIP is causal) and stay. Of SD3, the rows of its
    CLIP encoders; T5's keep the word.
    """
    where = positions(cond.extra["ids"], ids)
    rows = (alpha * concept[:, None]).to(cond.tokens)
    tokens = torch.where(where[..., None], rows, cond.tokens)
    return Condition(tokens, cond.pooled, cond.extra), where.any(dim=1)


def positions(rows: Int[Tensor, "b l"], ids: list[int]) -> Bool[Tensor, "b l"]:
    """Where the tokens of a word stand, at each of its occurrences."""
    starts = torch.ones_like(rows, dtype=torch.bool)
    for offset, number in enumerate(ids):
        starts &= rows.roll(-offset, 1) == number
    starts[:, rows.shape[1] - len(ids) + 1 :] = False
    return torch.stack([starts.roll(offset, 1) for offset in range(len(ids))]).any(dim=0)
