"""CAFe: contrastive and autoregressive finetuning of one vision-language model."""

from trainers.cafe.config import Cafe

__all__ = ["Cafe"]
