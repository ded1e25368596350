"""Settings and card of supervised finetuning of chat models with pictures."""

from studio.catalog.cards import Card
from studio.chat.config import PRESETS, Chat
from studio.settings.config import config


@config
class Vlm(Chat):
    """Finetune a vision-language model on conversations about pictures."""


METHOD = Card(
    name="vlm",
    title="Chat about pictures",
    summary="finetunes a LLaVA-like model on conversations: LoRA or all of it, loss on the answers alone",
    paper="Liu et al. 2023, arXiv 2304.08485 (LLaVA); 2310.03744 (LLaVA-1.5); 2408.03326 (LLaVA-OneVision)",
    config=Vlm,
    trainer="trainers.vlm.trainer:VlmTrainer",
    offers=("answers",),
    presets=PRESETS,
)
