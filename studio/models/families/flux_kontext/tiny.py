"""A small FLUX.1 Kontext with random weights."""

from diffusers import FluxKontextPipeline

from studio.models.families.flux.tiny import components


def build() -> FluxKontextPipeline:
    """The pipeline."""
    return FluxKontextPipeline(**components())
