"""CAFe: contrastive and autoregressive finetuning of one vision-language model."""
