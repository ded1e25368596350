"""A small SD 1.x with random weights."""

from diffusers import StableDiffusionPipeline

from studio.models import tiny


def build() -> StableDiffusionPipeline:
    """The pipeline."""
    return tiny.stable_diffusion("epsilon", "quick_gelu", linear=False)
