"""Embedded prompts, as a family gives them to its denoiser and edits change them.

Axes: `b` batch, `l` text length, `d` width, `p` width of the pooled vector.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from einops import repeat
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

ALONG = ("kinds", "ids", "mask")
"""Extras that have a value for every token."""

_EXTRA = "extra."


@dataclass(frozen=True)
class Condition:
    """Embedded prompts.

    Attributes:
        tokens: One row a token.
        pooled: One vector a prompt, where the family uses one.
        extra: Further tensors, b rows each. Always `kinds` (b l): 0 padding, 1 word, 2 begin, 3 end; of U-Nets also
            `ids` (b l), the numbers of the tokens; of families whose prompts differ in length `mask` (b l), True where
            there is a token. Read where given: `time_ids` (b 6; SDXL: original height and width, crop top and left,
            target height and width), `guidance` (b; FLUX.1 dev), `reference` (b n k) and what belongs to it (families
            that look at pictures).
    """

    tokens: Float[Tensor, "b l d"]
    pooled: Float[Tensor, "b p"] | None = None
    extra: Mapping[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.tokens)

    def rows(self, index: slice | Sequence[int] | Int[Tensor, " n"]) -> "Condition":
        """Some rows, in the order given."""
        pooled = None if self.pooled is None else self.pooled[index]
        return Condition(self.tokens[index], pooled, {key: value[index] for key, value in self.extra.items()})

    def cat(self, other: "Condition") -> "Condition":
        """The rows of this, then the rows of another; both need the same extras, and the same length or a mask."""
        length = max(self.tokens.shape[1], other.tokens.shape[1])
        one, two = self.padded(length), other.padded(length)
        pooled = None
        if one.pooled is not None and two.pooled is not None:
            pooled = torch.cat([one.pooled, two.pooled])
        extra = {key: torch.cat([one.extra[key], two.extra[key]]) for key in one.extra}
        return Condition(torch.cat([one.tokens, two.tokens]), pooled, extra)

    def fits(self, other: "Condition") -> bool:
        """Whether `cat` takes them together: they are of one length, or have masks."""
        same = self.tokens.shape[1] == other.tokens.shape[1]
        return same or ("mask" in self.extra and "mask" in other.extra)

    def padded(self, length: int) -> "Condition":
        """The same with rows of zeros up to a length, which the mask leaves out."""
        more = length - self.tokens.shape[1]
        if not more or "mask" not in self.extra:
            return self
        along = {key: F.pad(self.extra[key], (0, more)) for key in ALONG if key in self.extra}
        return replace(self, tokens=F.pad(self.tokens, (0, 0, 0, more)), extra={**self.extra, **along})

    def repeat(self, n: int) -> "Condition":
        """Every row n times, one copy beside the other (prompt-major)."""
        return self.rows(repeat(torch.arange(len(self)), "b -> (b n)", n=n))

    def to(self, device: torch.device | str) -> "Condition":
        """The same on another device."""
        pooled = None if self.pooled is None else self.pooled.to(device)
        return Condition(self.tokens.to(device), pooled, {k: v.to(device) for k, v in self.extra.items()})

    def tensors(self) -> dict[str, Tensor]:
        """All of it by name, as `of` reads it."""
        pooled = {} if self.pooled is None else {"pooled": self.pooled}
        return {"tokens": self.tokens, **pooled, **{f"{_EXTRA}{k}": v for k, v in self.extra.items()}}

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> "Condition":
        """A condition from what `tensors` gave."""
        extra = {key.removeprefix(_EXTRA): v for key, v in tensors.items() if key.startswith(_EXTRA)}
        return cls(tensors["tokens"], tensors.get("pooled"), extra)

    def with_extra(self, **tensors: Tensor) -> "Condition":
        """The same with further tensors."""
        return replace(self, extra={**self.extra, **tensors})
