"""An empty network and a file's weights, to a network that has all of them."""

import copy
import logging
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from diffusers import ModelMixin
from safetensors import safe_open
from torch import Tensor, nn

from studio.catalog.family import Part
from studio.errors import StudioError
from studio.models.architecture import component
from studio.models.checkpoints.convert import State, of_diffusers, of_text

log = logging.getLogger(__name__)


def empty(part: Part) -> Any:
    """A component without weights: they are on the meta device, its buffers are not."""
    with init_empty_weights():
        return component(part).eval()


def weights_in(file: Path, start: str = "") -> State:
    """Tensors of a file whose keys begin with `start`, without it. They are read from the disk when they are used."""
    with safe_open(file, "pt") as opened:
        keys = [key for key in opened.keys() if key.startswith(start)]  # noqa: SIM118  # not a dictionary
        return {key.removeprefix(start): opened.get_tensor(key) for key in keys}


def converted(module: nn.Module, part: Part, state: State) -> State:
    """A file's weights in the names of the network that they are for."""
    return of_diffusers(module, state) if part.library == "diffusers" else of_text(module, state)


def again(module: nn.Module, file: Path, start: str) -> nn.Module:
    """A second network like this one, with the weights that a file has under `start`.

    Raises:
        StudioError: Weights are absent or have other shapes.
    """
    state = weights_in(file, start)
    fresh = copy.deepcopy(module)
    own = of_diffusers(fresh, state) if isinstance(fresh, ModelMixin) else of_text(fresh, state)
    return filled(fresh, own, next(module.parameters()).dtype, f"{file} ({start})")


def unfit(module: nn.Module, state: State) -> list[str]:
    """What of a network a state lacks or has in another shape; empty if it can be filled."""
    own = module.state_dict()
    tied = getattr(module, "_tied_weights_keys", None) or {}
    lacks = [key for key in own if key not in state and key not in tied and not _counts(key)]
    other = [
        f"{key} {tuple(state[key].shape)} where {tuple(own[key].shape)} is wanted"
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    return lacks + other


def filled(module: nn.Module, state: State, dtype: torch.dtype, where: str) -> nn.Module:
    """The network with the weights of a state (in its own names), in a dtype; what has that dtype already is not copied.

    Raises:
        StudioError: Weights are absent or have other shapes.
    """
    if wrong := unfit(module, state):
        raise StudioError(
            f"{where} does not fit {type(module).__name__}: {len(wrong)} of its weights are absent or have other shapes, "
            f"such as {wrong[0]}; check what it was made from (--parts.variant), or download it again.",
            field="model",
        )
    own = module.state_dict().keys()
    if more := [key for key in state if key not in own and not _counts(key)]:
        log.info("%s has %d weights that are not used, such as %s.", where, len(more), more[0])
    module.load_state_dict(dict(_cast(module, state, own, dtype)), strict=False, assign=True)
    if hasattr(module, "tie_weights"):
        module.tie_weights()  # pyright: ignore[reportCallIssue]  # transformers'
    return module.requires_grad_(True)


def _cast(
    module: nn.Module, state: State, own: Collection[str], dtype: torch.dtype
) -> Iterator[tuple[str, Tensor]]:
    """Weights in their dtype: some of T5's overflow in fp16."""
    kept = set(getattr(module, "_keep_in_fp32_modules", None) or ()) if dtype == torch.float16 else set[str]()
    for key, value in state.items():
        if key in own:
            wanted = torch.float32 if kept & set(key.split(".")) else dtype
            yield key, value.to(wanted) if value.is_floating_point() else value


def _counts(key: str) -> bool:
    """Whether a key is of positions, which are counted and not trained."""
    return key.endswith(("position_ids", "pos_embed.pos_embed"))
