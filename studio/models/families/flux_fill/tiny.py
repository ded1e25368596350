"""A small FLUX.1 Fill with random weights."""

from diffusers import FluxFillPipeline

from studio.models.families.flux.tiny import components


def build() -> FluxFillPipeline:
    """The pipeline."""
    return FluxFillPipeline(**components(in_channels=384, out_channels=64))
