"""Finetuning and measuring of dual encoders: prompts, adapters, probes, contrastive losses, open-vocabulary protocols."""
