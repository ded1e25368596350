"""Denoisers with the blocks of the published models, one or two heads wide, and random weights."""

import functools

import torch

from studio.catalog import families
from studio.catalog.family import load
from studio.models.checkpoints.fill import empty

COUNTS = (
    "num_layers", "num_single_layers", "n_layers", "n_refiner_layers", "num_layerwise_text_blocks", "num_refiner_text_blocks",
    "down_block_types", "up_block_types", "layers_per_block", "transformer_layers_per_block", "use_linear_projection",
    "approximator_layers",
)  # fmt: skip
"""Settings that say how many blocks there are and of which kind."""
WIDTHS = {
    "sd1": {"block_out_channels": (16, 16, 32, 32), "attention_head_dim": 2},
    "sd2": {"block_out_channels": (16, 16, 32, 32), "attention_head_dim": (2, 2, 4, 4)},
    "sdxl": {"block_out_channels": (16, 16, 32), "attention_head_dim": (2, 2, 4)},
}
"""What the tiny models have fewer of than the published ones have blocks."""


@functools.cache
def components(family):
    """The tiny model's parts, with a denoiser of the published blocks."""
    card = families.cards()[family]
    torch.manual_seed(0)
    parts = {
        key: part
        for key, part in load(card.tiny)().components.items()
        if key == card.denoiser or key in card.words.trains
    }
    tiny = parts[card.denoiser]
    published = empty(card.variants[0].architecture[card.denoiser]).config
    settings = {key: published[key] for key in COUNTS if key in published}
    parts[card.denoiser] = (
        type(tiny).from_config({**tiny.config, **settings, **WIDTHS.get(family, {})}).eval()
    )
    return parts
