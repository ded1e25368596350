"""Applies the backend's choices to a family: placement, attention kernel, checkpointing, compilation."""

import logging
from typing import Any, TypeVar

import torch
from diffusers import UNet2DConditionModel
from torch import nn

from studio.backend.core import Backend
from studio.models.base import Family

F = TypeVar("F", bound=Family)


def _is_news(record: logging.LogRecord) -> bool:
    return "should be kept in float32" not in record.getMessage()


logging.getLogger("diffusers.models.modeling_utils").addFilter(
    _is_news
)  # it warns at every move, of an empty list too; `place` keeps them


def prepare(family: F, backend: Backend) -> F:
    """Place all modules, frozen, and switch on what the hardware settings ask for."""
    _place(family, backend)
    if backend.attention == "xformers":
        _xformers(family.denoiser)
    if backend.hardware.gradient_checkpointing:
        _checkpoint(family)
    if backend.hardware.compile:
        _compile(family.denoiser)
    return family


def _place(family: Family, backend: Backend) -> None:
    """Modules on the device, or in the machine's own memory those that rest."""
    for key, module in family.modules().items():
        rests = backend.hardware.offload and key != family.denoiser_name
        if not _quantized(module):
            backend.place(module, rests=rests)
        module.requires_grad_(False).eval()
        if rests:
            family.rest(key)
    if backend.dtype == torch.float16:
        _keep_exact(family)


def _keep_exact(family: Family) -> None:
    """In float32 what overflows in fp16: by the card, and the autoencoder where its settings say so (SDXL's)."""
    for key in {*family.card.fp32, *(["vae"] if family.vae.config.get("force_upcast") else [])}:
        family.modules()[key].float()


def _checkpoint(family: Family) -> None:
    def again(
        block: nn.Module, *inputs: Any
    ) -> Any:  # a function: a copy of the denoiser would copy a method's family
        return family.checkpointed(block, *inputs)

    family.denoiser.enable_gradient_checkpointing(again)
    for encoder in family.text_encoders.values():
        encoder.activation_checkpointing_enable({"use_reentrant": False})


def _compile(denoiser: nn.Module) -> None:
    """Compile each block on its own: the ones that diffusers names, else those in the network's own lists of blocks."""
    if getattr(denoiser, "_repeated_blocks", None):
        denoiser.compile_repeated_blocks()
        return
    for blocks in denoiser.children():
        if isinstance(blocks, nn.ModuleList):
            for block in blocks:
                block.compile()


def _xformers(denoiser: nn.Module) -> None:
    if isinstance(denoiser, UNet2DConditionModel):
        denoiser.enable_xformers_memory_efficient_attention()
    else:
        denoiser.set_attention_backend("xformers")


def _quantized(module: nn.Module) -> bool:
    config = module.config
    return "quantization_config" in (config if isinstance(config, dict) else config.to_dict())
