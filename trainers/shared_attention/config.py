"""Settings and card of shared attention."""

from typing import Annotated

from pydantic import Field

from studio.catalog.cards import Card
from studio.settings.config import Count, Fraction, config


@config
class SharedAttention:
    """Let every picture look at one leader while it is drawn, so that all share its style."""

    prompt: Annotated[str, Field(min_length=1)]
    """Prompt of the leader."""
    seed: Count = 0
    """Seed of the leader."""
    strength: Fraction = 1.0
    """Weight of the leader's keys beside the picture's own; 0 changes nothing (ours)."""
    share: Fraction = 1.0
    """Last part of the layers of self-attention that look at the leader."""
    normalize: bool = True
    """Give queries and keys the statistics of the leader's (paper: yes)."""


METHOD = Card(
    name="shared_attention",
    title="Shared attention",
    summary="draw pictures that share the style of one leader, without training",
    paper="Hertz et al. 2023 (StyleAligned), arXiv 2312.02133",
    config=SharedAttention,
    edit="trainers.shared_attention.edit:SharedAttentionEdit",
    offers=("edit",),
)
