"""Shared attention: pictures that look at one leader while they are drawn, and so share its style."""

from trainers.shared_attention.config import SharedAttention

__all__ = ["SharedAttention"]
