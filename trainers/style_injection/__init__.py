"""Style injection: draw one picture's structure in another picture's style; nothing is trained."""

from trainers.style_injection.config import StyleInjection

__all__ = ["StyleInjection"]
