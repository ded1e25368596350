"""What an adapter does to one layer, whatever file it came from: an update of its weight, and of its bias.

Shapes: weights are (n, d) of linear layers and (n, d, k, k) of convolutions; factors are as LyCORIS (arXiv 2309.14859) and
PEFT keep them, so that a file's tensors are taken as they are. Every update is at strength 1.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from einops import einsum, rearrange
from torch import Tensor


@dataclass(frozen=True)
class LowRank:
    """LoRA: alpha / rank * up @ down; of a convolution with a kernel in the middle, LoCon's Tucker form."""

    down: Tensor
    up: Tensor
    alpha: float
    mid: Tensor | None = None

    @property
    def rank(self) -> int:
        """Number of directions."""
        return self.down.shape[0]

    @property
    def scale(self) -> float:
        """What the product is multiplied by."""
        return self.alpha / self.rank

    @property
    def sizes(self) -> tuple[int, int]:
        """Rows of the weight that it is for, and numbers in a row."""
        kernel = 1 if self.mid is None else math.prod(self.mid.shape[2:])
        return len(self.up), self.down[0].numel() * kernel

    def folded(self) -> "LowRank":
        """The same update with alpha = rank."""
        return replace(self, up=self.up * self.scale, alpha=float(self.rank))

    def change(self, shape: torch.Size) -> Tensor:
        """The update of a weight of this shape, float32."""
        down, up = self.down.float(), self.up.float()
        if self.mid is not None:
            inner = einsum(self.mid.float(), down.flatten(1), "r s i j, s d -> r d i j")
            return self.scale * einsum(up.flatten(1), inner, "n r, r d i j -> n d i j")
        return self.scale * (up.flatten(1) @ down.flatten(1)).reshape(shape)

    def tensors(self) -> dict[str, Tensor]:
        """Its parts by role."""
        found = {"down": self.down, "up": self.up, "alpha": torch.tensor(self.alpha)}
        return found | ({} if self.mid is None else {"mid": self.mid})


@dataclass(frozen=True)
class Hadamard:
    """LoHa: alpha / rank * (w1_a @ w1_b) * (w2_a @ w2_b); t1 and t2 are the kernels of convolutions in Tucker form."""

    w1: tuple[Tensor, Tensor]
    w2: tuple[Tensor, Tensor]
    alpha: float
    kernels: tuple[Tensor, Tensor] | None = None

    @property
    def rank(self) -> int:
        """Rank of each factor."""
        return self.w1[1].shape[0]

    @property
    def scale(self) -> float:
        """What the product is multiplied by."""
        return self.alpha / self.rank

    @property
    def sizes(self) -> tuple[int, int]:
        """Rows of the weight that it is for, and numbers in a row."""
        kernel = self.kernels[0] if self.kernels else None
        return _sizes(*self.w1, kernel)

    def change(self, shape: torch.Size) -> Tensor:
        """The update of a weight of this shape, float32."""
        kernels = self.kernels or (None, None)
        first, second = (
            _product(*pair, kernel) for pair, kernel in zip((self.w1, self.w2), kernels, strict=True)
        )
        return self.scale * (first * second).reshape(shape)

    def tensors(self) -> dict[str, Tensor]:
        """Its parts by role."""
        found = {
            "hada_w1_a": self.w1[0],
            "hada_w1_b": self.w1[1],
            "hada_w2_a": self.w2[0],
            "hada_w2_b": self.w2[1],
        }
        kernels = dict(zip(("hada_t1", "hada_t2"), self.kernels, strict=True)) if self.kernels else {}
        return found | kernels | {"alpha": torch.tensor(self.alpha)}


@dataclass(frozen=True)
class Kronecker:
    """LoKr: scale * kron(w1, w2); each factor is one tensor, or a low-rank product of two (and t2, a convolution's kernel)."""

    w1: tuple[Tensor, ...]
    w2: tuple[Tensor, ...]
    alpha: float | None = None

    @property
    def rank(self) -> int:
        """Rank of the factors that are products; 0 where both are whole."""
        pair = self.w2 if len(self.w2) > 1 else self.w1
        return pair[1].shape[0] if len(pair) > 1 else 0

    @property
    def scale(self) -> float:
        """What the product is multiplied by: 1 where both factors are whole, whatever alpha (LyCORIS, ComfyUI)."""
        return self.alpha / self.rank if self.rank and self.alpha is not None else 1.0

    @property
    def sizes(self) -> tuple[int, int]:
        """Rows of the weight that it is for, and numbers in a row."""
        pairs = [_sizes_of(parts) for parts in (self.w1, self.w2)]
        return pairs[0][0] * pairs[1][0], pairs[0][1] * pairs[1][1]

    def change(self, shape: torch.Size) -> Tensor:
        """The update of a weight of this shape, float32."""
        first = self.w1[0].float() if len(self.w1) == 1 else _product(self.w1[0], self.w1[1])
        second = self.w2[0].float() if len(self.w2) == 1 else _product(*self.w2)
        first = first.reshape(*first.shape, *[1] * (second.ndim - first.ndim))
        return self.scale * torch.kron(first, second).reshape(shape)

    def tensors(self) -> dict[str, Tensor]:
        """Its parts by role."""
        found: dict[str, Tensor] = {}
        for key, parts in (("lokr_w1", self.w1), ("lokr_w2", self.w2)):
            found |= {key: parts[0]} if len(parts) == 1 else {f"{key}_a": parts[0], f"{key}_b": parts[1]}
        if len(self.w2) > 2:
            found["lokr_t2"] = self.w2[2]
        return found if self.alpha is None else found | {"alpha": torch.tensor(self.alpha)}


@dataclass(frozen=True)
class Difference:
    """The whole difference of a weight."""

    diff: Tensor

    @property
    def rank(self) -> int:
        """None to speak of."""
        return 0

    @property
    def sizes(self) -> tuple[int, int]:
        """Rows of the weight that it is for, and numbers in a row."""
        return len(self.diff), self.diff[0].numel()

    def change(self, shape: torch.Size) -> Tensor:
        """The update of a weight of this shape, float32."""
        return self.diff.float().reshape(shape)

    def tensors(self) -> dict[str, Tensor]:
        """Its parts by role."""
        return {"diff": self.diff}


@dataclass(frozen=True)
class Rows:
    """Rows of the update of a layer that is made of several of ours; `ranges` are put below each other.

    Attributes:
        whole: The update of the fused layer.
        total: Its rows.
        ranges: First row and the one after the last, of each piece.
    """

    whole: "LowRank | Hadamard | Kronecker | Difference"
    total: int
    ranges: tuple[tuple[int, int], ...]

    @property
    def rank(self) -> int:
        """The whole one's."""
        return self.whole.rank

    @property
    def sizes(self) -> tuple[int, int]:
        """Rows of the weight that it is for, and numbers in a row."""
        return sum(stop - start for start, stop in self.ranges), self.whole.sizes[1]

    def change(self, shape: torch.Size) -> Tensor:
        """The update of a weight of this shape, float32."""
        full = self.whole.change(torch.Size((self.total, *shape[1:])))
        return torch.cat([full[start:stop] for start, stop in self.ranges])


Additive = LowRank | Hadamard | Kronecker | Difference | Rows


@dataclass(frozen=True)
class Update:
    """One layer's update: W0 + additive; with DoRA's magnitudes, that with its rows (or columns) brought to these lengths.

    Attributes:
        additive: What is added; None where the bias alone moves.
        magnitude: Lengths of the rows, (n); or of the columns, (1, d) and (1, d, 1, 1).
        norm: Whose lengths they are divided by: those of the changed weight (the paper, LyCORIS, PEFT), or of the base weight,
            as ComfyUI and Forge compute it for rows.
        bias: What is added to the bias, (n).
    """

    additive: Additive | None
    magnitude: Tensor | None = None
    norm: Literal["changed", "base"] = "changed"
    bias: Tensor | None = None

    @property
    def by_columns(self) -> bool:
        """Whether the magnitudes are the columns' (LyCORIS with `wd_on_output=False`)."""
        return self.magnitude is not None and self.magnitude.ndim > 1

    def change(self, weight: Tensor) -> Tensor:
        """W - W0, float32, of the base weight W0."""
        if self.additive is None:
            return torch.zeros(weight.shape)
        added = self.additive.change(weight.shape)
        if self.magnitude is None:
            return added
        added = added.to(weight.device)
        base = weight.float()
        lengths = _lengths(
            base if self.norm == "base" and not self.by_columns else base + added, self.by_columns
        )
        wanted = self.magnitude.float().to(weight.device)
        wanted = wanted if self.by_columns else wanted.reshape(-1, *[1] * (weight.ndim - 1))
        return (base + added) * (wanted / lengths.clamp_min(torch.finfo(torch.float32).eps)) - base

    def against_base(self, weight: Tensor) -> "Update":
        """The same update with magnitudes that are divided by the lengths of the base weight's rows."""
        if self.magnitude is None or self.additive is None or self.norm == "base":
            return self
        base = weight.float()
        ratio = _lengths(base, False) / _lengths(base + self.additive.change(weight.shape), False)
        return replace(self, magnitude=self.magnitude.float() * ratio.flatten(), norm="base")


Updates = dict[str, dict[str, Update]]
"""For each component (unet, transformer, text_encoder ...) and layer, its update."""


def kinds(updates: Mapping[str, Mapping[str, Update]]) -> list[str]:
    """What the updates are, as people call it: LoRA, DoRA, LoHa ..."""
    found = {_kind(one) for layers in updates.values() for one in layers.values()}
    return sorted(found)


def _kind(one: Update) -> str:
    additive = one.additive.whole if isinstance(one.additive, Rows) else one.additive
    names = {LowRank: "LoRA", Hadamard: "LoHa", Kronecker: "LoKr", Difference: "full difference"}
    name = "bias" if additive is None else names[type(additive)]
    if isinstance(additive, LowRank) and additive.down.ndim == 4 and math.prod(additive.down.shape[2:]) > 1:
        name = "LoCon"
    if one.magnitude is None:
        return name
    return "DoRA" if name in ("LoRA", "LoCon") else f"DoRA of {name}"


def _product(a: Tensor, b: Tensor, kernel: Tensor | None = None) -> Tensor:
    if kernel is None:
        return a.float() @ b.float()
    return einsum(kernel.float(), a.float(), b.float(), "i j ..., i p, j r -> p r ...")


def _sizes_of(parts: tuple[Tensor, ...]) -> tuple[int, int]:
    """Rows and numbers in a row of a factor, whole or a product."""
    whole = parts[0]
    return _sizes(*parts) if len(parts) > 1 else (len(whole), whole[0].numel())


def _sizes(a: Tensor, b: Tensor, kernel: Tensor | None = None) -> tuple[int, int]:
    """Rows and numbers in a row of a product."""
    if kernel is None:
        return len(a), b.shape[1]
    return a.shape[1], b.shape[1] * math.prod(kernel.shape[2:])


def _lengths(weight: Tensor, by_columns: bool) -> Tensor:
    """Lengths of the rows, (n 1 ...), or of the columns, (1 d ...)."""
    if by_columns:
        flat = rearrange(weight, "n d ... -> d (n ...)").norm(dim=1)
        return flat.reshape(1, -1, *[1] * (weight.ndim - 2))
    return weight.flatten(1).norm(dim=1).reshape(-1, *[1] * (weight.ndim - 1))
