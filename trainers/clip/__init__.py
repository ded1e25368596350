"""Finetuning of dual encoders: contrastive, probes, learned prompts, adapters."""
