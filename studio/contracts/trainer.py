"""The contracts a method is written against.

A `Trainer` says what to learn; the loop learns it. An `Edit` changes sampling without learning. Axes in the
signatures: `b` batch, `c h w` image or latent, `d` width. Images are in [-1, 1] inside.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from PIL.Image import Image
from torch import Tensor, nn

from studio.contracts.batch import Batch, Shard, Source

if TYPE_CHECKING:
    from studio.backend.core import Backend
    from studio.backend.rng import Rng
    from studio.models.base import Condition
    from studio.models.draw import Guidance

__all__ = [
    "AttentionFunction",
    "Batch",
    "Edit",
    "Group",
    "Loss",
    "Output",
    "PlainEdit",
    "Request",
    "Shard",
    "Source",
    "Trainer",
]


@dataclass(frozen=True, kw_only=True)
class Group:
    """What a run remembers: the tensors of `module` named in `names` (all of them if None).

    What `trains` is optimized, at its own `lr` if given, times `lr_scale`; all else stays frozen. A teacher or a
    buffer is a group with `trains=False`.
    """

    name: str
    module: nn.Module
    names: frozenset[str] | None = None
    lr: float | None = None
    lr_scale: float = 1.0
    weight_decay: float | None = None
    trains: bool = True

    def tensors(self) -> dict[str, Tensor]:
        """Parameters and buffers of the group by name, live (not copies)."""
        found: dict[str, Tensor] = {
            **dict(self.module.named_parameters()),
            **dict(self.module.named_buffers()),
        }
        return {key: value for key, value in found.items() if self.names is None or key in self.names}

    def parameters(self) -> dict[str, nn.Parameter]:
        """The parameters of the group by name."""
        return {key: value for key, value in self.tensors().items() if isinstance(value, nn.Parameter)}


@dataclass(frozen=True)
class Loss:
    """A scalar to minimize, and its named parts for the record (scalars, kept on the device)."""

    total: Tensor
    parts: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])


@dataclass(frozen=True, kw_only=True)
class Request:
    """What to sample. One picture a (prompt, seed): picture i of a prompt has seed `seed + i`."""

    prompts: Sequence[str] = ()
    negative: str = ""
    num_images: int = 1
    seed: int = 0
    steps: int = 20
    guidance: float = 4.0
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


class Trainer(ABC):
    """Base of every method, one level deep: nobody subclasses a concrete trainer.

    Built as `XTrainer(config)`; nothing is loaded before `setup`.
    """

    backend: "Backend"

    @abstractmethod
    def __init__(self, config: Any) -> None:
        """Keep the settings; check what can be checked without loading."""

    @abstractmethod
    def setup(self, backend: "Backend") -> list[Group]:
        """Build and place models, attach adapters; return what the run remembers.

        Called under a forked, seeded RNG, so that fresh weights repeat.
        """

    @abstractmethod
    def source(self) -> Source:
        """The training data. Called after `setup`."""

    @abstractmethod
    def loss(self, batch: Batch, rng: "Rng") -> Loss:
        """The paper's objective on one part of a batch. Draws only from `rng`; never steps or logs."""

    @abstractmethod
    def sample(self, request: Request, rng: "Rng") -> Output:
        """Answer a request with the weights as they are."""

    def batches(self, data: Iterator[Batch], first: int) -> Iterator[Batch]:
        """Turn the stream of batches into another one (RL rollouts, class images). Default: pass on."""
        del first
        return data

    def after_step(self, step: int) -> None:
        """State that follows the weights (teacher, projection). `step` counts finished steps from 1."""

    def held_out(self) -> Source | None:
        """Data for the validation loss and scores during training; None if there is none."""
        return None

    def prompts(self) -> Sequence[str]:
        """Prompts worth drawing as previews when the person named none."""
        return ()

    def score(self, output: Output, request: Request) -> dict[str, float]:
        """Scores of a preview, by name; `quality`, if given, names the best checkpoint (higher is better)."""
        del output, request
        return {}

    def state(self) -> dict[str, Any]:
        """What resuming needs beside the groups: nested dicts and lists of tensors, numbers and strings."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take back what `state` gave."""
        del state

    def resumable(self, step: int) -> bool:
        """Whether a checkpoint after `step` resumes exactly (RL: only at rollout boundaries)."""
        del step
        return True

    @abstractmethod
    def export(self, folder: Any) -> list[Any]:
        """Write the trained weights in the ecosystem's formats into `folder`; return the files written."""


@runtime_checkable
class Edit(Protocol):
    """Changes sampling without learning; edits apply in list order. `PlainEdit` has every verb as the identity."""

    def begin(self, request: Request, scheduler: Any) -> None:
        """Told before pictures are drawn: the request with its size, and the sampler set to its steps."""
        ...

    def at(self, step: int) -> None:
        """Told before each sampler step, counted from 0."""
        ...

    def condition(self, cond: "Condition") -> "Condition":
        """Change the text condition."""
        ...

    def start(self, latents: Tensor, rng: "Rng") -> Tensor:
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
        cond: "Condition",
        uncond: "Condition | None",
        guidance: "Guidance",
    ) -> Tensor | None:
        """The guided native prediction of a sampler step in place of the usual one, or None to leave it as it is.

        Of several edits the first that gives one is taken. `x_t` (b c h w) is what the denoiser sees at times t (b);
        all edits' attention is in place; `uncond` is None where guidance needs no second pass.
        """
        ...


AttentionFunction = Callable[..., Tensor]
"""(query, key, value, *, layer, cross, scale, ordinary) -> (b, heads, n, d); see `studio.models.attention`."""


class PlainEdit:
    """Changes nothing: an edit says what it changes and takes the rest from here."""

    def begin(self, request: Request, scheduler: Any) -> None:
        """Needs to know nothing."""

    def at(self, step: int) -> None:
        """Follows nothing."""

    def condition(self, cond: "Condition") -> "Condition":
        """The condition as it is."""
        return cond

    def start(self, latents: Tensor, rng: "Rng") -> Tensor:
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
        cond: "Condition",
        uncond: "Condition | None",
        guidance: "Guidance",
    ) -> Tensor | None:
        """The prediction as it is."""
        del x_t, t, cond, uncond, guidance
        return None
