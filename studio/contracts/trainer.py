"""The contract of a method that trains: a `Trainer` says what to learn; the loop learns it.

Axes in the signatures: `b` batch, `c h w` image or latent, `d` width. Images are in [-1, 1] inside.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from studio.contracts.batch import Batch, Source
from studio.contracts.sampling import Output, Request

if TYPE_CHECKING:
    from studio.backend.core import Backend
    from studio.backend.rng import Rng


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
