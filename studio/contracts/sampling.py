"""The contracts of sampling: what is asked, what is answered, and what a method may change meanwhile.

An `Edit` changes sampling without learning; `PlainEdit` has every verb as the identity. Axes: `b` pictures of one chunk,
`c h w` latent, `n` tokens, `d` width. Images are in [-1, 1] inside.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from PIL.Image import Image
from torch import Tensor

from studio.backend.rng import Rng
from studio.catalog.drawing import GUIDANCE, STEPS
from studio.contracts.batch import Batch
from studio.contracts.condition import Condition
from studio.diffusion.guidance import Guidance


@dataclass(frozen=True, kw_only=True)
class Request:
    """What to sample. One picture a (prompt, seed): picture i of a prompt has seed `seed + i`."""

    prompts: Sequence[str] = ()
    negative: str = ""
    num_images: int = 1
    seed: int = 0
    steps: int = STEPS
    guidance: float = GUIDANCE
    width: int = 0
    height: int = 0
    scheduler: str = ""
    edits: Sequence["Edit"] = ()
    references: Sequence[Image] = ()
    """RGB pictures of the subject, of any size, for methods that look at some while they draw."""
    batch: Batch | None = None


@dataclass(frozen=True, kw_only=True)
class Output:
    """What a request gave: images as PIL (prompt-major order), or texts, or scores of labels (b, classes)."""

    images: Sequence[Image] = ()
    texts: Sequence[str] = ()
    logits: Tensor | None = None


@runtime_checkable
class Edit(Protocol):
    """Changes sampling without learning; edits apply in list order. `PlainEdit` has every verb as the identity."""

    takes_references: bool
    """Whether a request's references are for it; a family that looks at pictures by itself then sees none."""

    def begin(self, request: Request, scheduler: Any) -> None:
        """Told before pictures are drawn: the request with its size, and the sampler set to its steps."""
        ...

    def at(self, step: int) -> None:
        """Told before each sampler step, counted from 0."""
        ...

    def condition(self, cond: Condition) -> Condition:
        """Change the text condition."""
        ...

    def start(self, latents: Tensor, rng: Rng) -> Tensor:
        """Change the initial noise (b c h w)."""
        ...

    def attention(self, layer: str) -> "AttentionFunction | None":
        """A replacement for the attention of one layer, or None to leave it as it is."""
        ...

    def predict(
        self,
        x_t: Tensor,
        t: Tensor,
        *,
        cond: Condition,
        uncond: Condition | None,
        guidance: Guidance,
    ) -> Tensor | None:
        """The guided native prediction of a sampler step in place of the usual one, or None to leave it as it is.

        Of several edits the first that gives one is taken. `x_t` (b c h w) is what the denoiser sees at times t (b);
        all edits' attention is in place; `uncond` is None where guidance needs no second pass.
        """
        ...


AttentionFunction = Callable[..., Tensor]
"""(query, key, value, *, layer, cross, scale, ordinary) -> (b, heads, n, d); see `studio.models.attention`."""


class PlainEdit:
    """Changes nothing: an edit says what it changes and takes the rest from here.

    Attributes:
        takes_references: The request's references are for this edit: a model that could look at some by itself is shown none.
    """

    takes_references: bool = False

    def begin(self, request: Request, scheduler: Any) -> None:
        """Needs to know nothing."""

    def at(self, step: int) -> None:
        """Follows nothing."""

    def condition(self, cond: Condition) -> Condition:
        """The condition as it is."""
        return cond

    def start(self, latents: Tensor, rng: Rng) -> Tensor:
        """The noise as it is."""
        del rng
        return latents

    def attention(self, layer: str) -> "AttentionFunction | None":
        """Attention as it is."""
        del layer
        return None

    def predict(
        self,
        x_t: Tensor,
        t: Tensor,
        *,
        cond: Condition,
        uncond: Condition | None,
        guidance: Guidance,
    ) -> Tensor | None:
        """The prediction as it is."""
        del x_t, t, cond, uncond, guidance
        return None
