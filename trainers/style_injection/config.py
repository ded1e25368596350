"""Settings and card of style injection."""

from typing import Annotated, Literal

from pydantic import Field

from studio.catalog.cards import Card
from studio.settings.config import Count, Fraction, config


@config
class StyleInjection:
    """Redraw a picture in the style of another one, by attention to that other one. Prompts are not read."""

    content: str
    """Picture whose structure stays."""
    style: str
    """Picture whose style is taken."""
    preserve: Fraction = 0.75
    """Share of the content's own queries (gamma; paper: 0.75, and 0.3 for more style)."""
    temperature: Annotated[float, Field(gt=0)] = 1.5
    """Sharpens attention to the style (tau; paper: 1.5)."""
    share: Fraction = 0.375
    """Last part of the layers of self-attention that look at the style (paper: the last six of SD 1.5's sixteen)."""
    begin: Literal["adain", "content", "mixture"] = "adain"
    """First latents: adain: the content's with the style's statistics (paper); content: as they are; mixture: half each."""
    refine: Count = 5
    """Fixed-point iterations a step of the inversion; 0 is plain DDIM inversion (paper)."""


METHOD = Card(
    name="style_injection",
    title="Style injection",
    summary="redraw a picture in the style of another one, without training",
    paper="Chung et al., CVPR 2024, arXiv 2312.09008",
    config=StyleInjection,
    edit="trainers.style_injection.edit:StyleInjectionEdit",
    offers=("edit",),
)
