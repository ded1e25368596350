"""Captioner: maximum likelihood, then discriminative finetuning by a retrieval reward."""
