"""Flow-GRPO: online reinforcement learning of flow-matching models."""

from trainers.flow_grpo.config import FlowGrpo

__all__ = ["FlowGrpo"]
