"""Nullspace finetuning: train on token noise that the encoder ignores."""
