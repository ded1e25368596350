"""The components of a published model, built from its card: with random weights, or on the meta device with none."""

import importlib
from typing import Any

from studio.catalog.family import Part, Variant


def component(part: Part) -> Any:
    """A component with fresh weights on torch's default device; a scheduler has none."""
    cls = getattr(importlib.import_module(part.library), part.cls)
    if part.library == "diffusers":
        return cls.from_config(dict(part.config))  # which leaves out what a class writes and does not take
    return cls._from_config(cls.config_class(**part.config))


def modules(variant: Variant) -> dict[str, Any]:
    """All networks of a published model, by diffusers' names."""
    return {key: component(part) for key, part in variant.architecture.items() if key != "scheduler"}
