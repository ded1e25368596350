"""Weights under the names of original checkpoints, to those of diffusers and transformers. Views where possible, no copies.

A state is a mapping of keys to tensors, without the start that a whole model's file gives them.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from diffusers.loaders.single_file_model import SINGLE_FILE_LOADABLE_CLASSES
from torch import Tensor, nn

from studio.errors import StudioError
from studio.models.checkpoints.hub import first_line

State = Mapping[str, Tensor]
_UNET = "model.diffusion_model."
"""What diffusers' conversion of U-Nets looks for."""
_OPEN_CLIP = (
    (r"^transformer\.resblocks\.", "encoder.layers."),
    (r"\.ln_(\d)\.", r".layer_norm\1."),
    (r"\.c_fc\.", ".fc1."),
    (r"\.c_proj\.", ".fc2."),
    (r"\.attn\.", ".self_attn."),
    (r"^ln_final\.", "final_layer_norm."),
    (r"^token_embedding\.", "embeddings.token_embedding."),
    (r"^positional_embedding$", "embeddings.position_embedding.weight"),
)
"""open_clip's names of text towers, and transformers'."""


def of_diffusers(module: Any, state: State) -> State:
    """Weights of a denoiser or an autoencoder, in diffusers' names.

    Args:
        module: The network that they are for, with its settings; its weights may be anything.
        state: In the original names or already in diffusers'.

    Raises:
        StudioError: Diffusers' converter finds weights absent or of other sizes.
    """
    kind = type(module).__name__
    if module.state_dict().keys() <= state.keys() or kind not in SINGLE_FILE_LOADABLE_CLASSES:
        return state
    start = _UNET if kind == "UNet2DConditionModel" else ""
    change = SINGLE_FILE_LOADABLE_CLASSES[kind]["checkpoint_mapping_fn"]
    try:
        return change(checkpoint={start + key: value for key, value in state.items()}, config=module.config)
    except (
        LookupError,
        RuntimeError,
    ) as error:  # diffusers' converters take the weights by name, and cut them
        raise StudioError(
            f"The weights do not convert to those of a {kind} ({first_line(error)}): some are absent or have other sizes; "
            "check what the file was made from (--parts.variant), or download it again.",
            field="model",
        ) from error


def of_text(module: nn.Module, state: State) -> State:
    """Weights of a text encoder, in transformers' names.

    Args:
        module: The encoder that they are for; its weights may be anything.
        state: In open_clip's names or transformers', with or without `text_model.` or `model.` in front.
    """
    if any("resblocks." in key for key in state):
        state = dict(_of_open_clip(state))
    wanted = module.state_dict().keys()
    return {_name(key, wanted): value for key, value in state.items()}


def _name(key: str, wanted: Any) -> str:
    """A key as the encoder spells it: libraries and their versions differ in what stands in front."""
    bare = key.removeprefix("text_model.").removeprefix("model.")
    ways = (key, bare, f"text_model.{bare}", f"model.{bare}")
    return next((way for way in ways if way in wanted), key)


def _of_open_clip(state: State) -> Iterator[tuple[str, Tensor]]:
    """open_clip's text tower: one weight for query, key and value; the projection stands the other way round."""
    for key, value in state.items():
        name = key
        for old, new in _OPEN_CLIP:
            name = re.sub(old, new, name)
        if name == "text_projection":
            yield "text_projection.weight", value.T
        elif "in_proj_" in name:
            start, end = name.split("in_proj_")
            for letter, part in zip("qkv", value.chunk(3), strict=True):
                yield f"{start}{letter}_proj.{end}", part
        else:
            yield name, value
