"""Supervised finetuning of vision-language models on conversations about pictures."""
