"""InstantBooth: a subject from pictures in one sampling, by a concept token and gated adapter layers."""

from trainers.instantbooth.config import InstantBooth

__all__ = ["InstantBooth"]
