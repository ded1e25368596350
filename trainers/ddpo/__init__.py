"""DDPO: reinforcement learning of the denoiser."""
