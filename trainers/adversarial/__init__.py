"""Adversarial training: PGD-AT and TRADES."""
