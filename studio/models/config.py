"""Settings of loading and sampling. No torch here."""

from typing import Annotated

from pydantic import Field

from studio.config import Count, config

SCHEDULERS = ("ddim", "ddpm", "euler", "euler_a", "heun", "lms", "pndm", "lcm", "dpm++", "dpm++_karras", "dpm++_sde",
              "unipc")  # fmt: skip
"""Samplers of families that predict eps or v, by their common names."""
FLOW_SCHEDULERS = ("flow-euler", "flow-heun", "flow-dpm++", "flow-unipc")
"""Samplers of flow-matching families."""


@config
class Text:
    """How prompts become embeddings."""

    clip_skip: Count = 0
    """CLIP layers to leave out, counted from the one that the family reads (1: the layer before it)."""
    long_prompts: bool = False
    """Encode prompts of more than 75 tokens in parts; otherwise they are cut, with a warning."""
    t5_tokens: Annotated[int, Field(ge=0, le=512)] = 0
    """Tokens T5 reads (SD3, FLUX); 0 takes the family's own: 256 for SD3, 512 for FLUX."""
