"""Settings and card of CAFe."""

from typing import Annotated

from pydantic import Field

from studio.catalog.cards import Card
from studio.chat.config import PRESETS, Chat
from studio.settings.config import Count, config


@config
class Cafe(Chat):
    """Finetune one vision-language model to write and to embed: pictures and texts in one space."""

    contrast_weight: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the contrastive loss (lambda in the paper: 1); 0 is plain finetuning on conversations."""
    temperature: Annotated[float, Field(gt=0)] = 0.05
    """Cosines are divided by it (official code: 0.05, fixed)."""
    chunk: Count = 0
    """Pairs embedded at once; the rest is computed again in the backward pass, so memory holds one chunk; 0 takes all."""


METHOD = Card(
    name="cafe",
    title="CAFe",
    summary="contrastive and autoregressive finetuning: one chat model that writes and embeds",
    paper="Yu et al. 2025, arXiv 2503.19900",
    config=Cafe,
    trainer="trainers.cafe.trainer:CafeTrainer",
    offers=("answers", "matching"),
    presets=PRESETS,
)
