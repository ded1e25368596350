"""A small SD 2.x with random weights, which predicts v."""

from diffusers import StableDiffusionPipeline

from studio.models import tiny


def build() -> StableDiffusionPipeline:
    """The pipeline."""
    return tiny.stable_diffusion("v_prediction", "gelu", linear=True)
