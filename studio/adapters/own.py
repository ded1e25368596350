"""Adapters from outside: the person's code chooses layers, ranks and kind, as one of PEFT's configurations.

That is all it does: what is put on the model, saved and read back is PEFT's, so that strengths, merging, resuming and
exports hold, and nobody needs the person's code to use the result.
"""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from peft import PeftConfig
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from torch import Tensor, nn

from studio.catalog import outside
from studio.errors import StudioError
from studio.settings.custom import Custom

KNOWN = tuple(PEFT_TYPE_TO_CONFIG_MAPPING.values())
"""What PEFT reads back."""
UNFIT = ("modules_to_save", "trainable_token_indices")
"""Entries that train more than an adapter, which files of adapters do not hold here."""


def own_config(custom: Custom, module: nn.Module) -> PeftConfig:
    """The configuration that the person's code gives for one model.

    Raises:
        StudioError: The code is not there, fails, or gives something that could not be used or read back.
    """
    found = outside.load(custom.path, what="Adapter", field="adapter.path")
    by_itself = inspect.isclass(found) and issubclass(found, PeftConfig)
    config = outside.called(custom, *(() if by_itself else (module,)), what="Adapter", field="adapter")
    if type(config) not in KNOWN:
        raise StudioError(
            f"Adapter {custom.path!r} gave a {type(config).__name__}; it must give a configuration that PEFT itself reads, "
            "such as peft.LoraConfig.",
            field="adapter.path",
        )
    values = config.to_dict()
    if more := [name for name in UNFIT if values.get(name)] + ["bias"] * (
        values.get("bias", "none") != "none"
    ):
        raise StudioError(
            f"Adapter {custom.path!r} sets {more[0]}, which trains weights that no adapter's file holds; leave it out.",
            field="adapter.path",
        )
    return config


@contextmanager
def base_kept(custom: Custom, module: nn.Module) -> Iterator[None]:
    """Refuse an adapter whose start changes the base weights (PiSSA, OLoRA, CorDA): its file would not tell.

    Raises:
        StudioError: It did; the model is not to be used any more.
    """
    before = {name.replace(".base_layer", ""): _look(value) for name, value in module.named_parameters()}
    yield
    after = {name.replace(".base_layer", ""): _look(value) for name, value in module.named_parameters()}
    if changed := [name for name, seen in before.items() if not torch.equal(after[name], seen)]:
        raise StudioError(
            f"Adapter {custom.path!r} changed the base weights of {len(changed)} layers at its start, first "
            f"{changed[0]}, which its file would not tell; choose another first value (init_lora_weights).",
            field="adapter.path",
        )


@torch.no_grad()
def _look(value: Tensor) -> Tensor:
    """A few numbers by which changed weights are told from unchanged ones."""
    flat = value.detach().float().flatten()
    return torch.stack([flat.sum(), flat.abs().sum(), flat[0], flat[-1]])
