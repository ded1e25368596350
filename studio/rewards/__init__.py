"""Rewards: (images, prompts) -> (b,) scores, higher is better; images are tensors in [-1, 1]."""
