"""Flow-GRPO: online reinforcement learning of flow-matching models."""
