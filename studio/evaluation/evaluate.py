"""Every evaluation behind one function, for Python."""

import dataclasses
import importlib
from collections.abc import Mapping
from typing import Any

from studio.errors import unknown
from studio.matching.config import VlmEval
from studio.metrics.config import DreamBenchEval, SubjectEval
from studio.settings import serial
from studio.vision.config import Nullspace, Robustness

Request = SubjectEval | DreamBenchEval | Robustness | Nullspace | VlmEval
NAMES: Mapping[str, tuple[type, str]] = {
    "subject": (SubjectEval, "studio.evaluation.subject:evaluate"),
    "dreambench": (DreamBenchEval, "studio.evaluation.dreambench:evaluate"),
    "robustness": (Robustness, "studio.evaluation.robustness:evaluate"),
    "nullspace": (Nullspace, "studio.evaluation.nullspace:analyze"),
    "vlm": (VlmEval, "studio.evaluation.vlm:evaluate"),
}
"""What `studio eval` is followed by: the settings of each, and what runs it."""


def evaluate(request: str | Request, **settings: Any) -> Any:
    """Measure an artifact or a model, as `studio eval` does; report and numbers are written beside it.

        studio.evaluate("subject", artifact="runs/dog", data="photos_not_trained_on").rows

    Args:
        request: The name of an evaluation (subject, dreambench, robustness, nullspace, vlm), or its settings.
        settings: Settings by name, beside a name.

    Returns:
        What it found: numbers, and `folder` or `report`, where they are written.

    Raises:
        StudioError: There is no such evaluation, or something that the settings name cannot be used.
    """
    if isinstance(request, str):
        if request not in NAMES:
            raise unknown("evaluation", request, NAMES)
        values = {name: serial.plain(value) for name, value in settings.items()}
        request = serial.from_dict(NAMES[request][0], values)
    elif settings:
        request = dataclasses.replace(request, **settings)
    where = next(place for cls, place in NAMES.values() if isinstance(request, cls))
    module, _, function = where.partition(":")
    return getattr(importlib.import_module(module), function)(request)
