"""The WiSE-FT curve of an evaluation: clean, corrupted and attacked accuracy between two nets."""

import logging
from pathlib import Path

from studio.attacks.build import Attacker
from studio.attacks.constants import BENCHMARK
from studio.errors import StudioError
from studio.metrics.robustness import accuracy
from studio.models.vit import Classifier, load_classifier
from studio.records import runs
from studio.vision import robustness as measure
from studio.vision.config import Robustness
from studio.vision.interpolate import interpolated

log = logging.getLogger(__name__)

RANDOM = ("new:", "tiny:", "small:")
"""Beginnings of the names of nets with random weights."""
SEVERITY = 3
"""Of the corruptions along the line."""


def load_before(before: str, model: str, classes: tuple[str, ...]) -> Classifier | None:
    """The net before finetuning, on the CPU: the one named, or with `auto` the one that the run `model` started from.

    Raises:
        StudioError: It was named, and cannot be read.
    """
    if before == "none":
        return None
    if before != "auto":
        return load_classifier(before, classes)
    start = _start_of_run(model)
    if not start or start.startswith(RANDOM):
        log.info("no net before finetuning: %s is no run that started from trained weights", model)
        return None
    try:
        return load_classifier(start, classes)
    except StudioError as error:
        log.warning("nothing is compared with the net before finetuning: %s", error)
        return None


def _start_of_run(model: str) -> str:
    """What a run says it started from; empty if `model` is no run."""
    for place in (Path(model), Path("runs") / model):
        if (place / "config.json").is_file() and (place / "export").is_dir():
            return str(vars(runs.open_run(place)[1].method)["model"])
    return ""


def curve(
    request: Robustness, before: Classifier, after: Classifier, examined: measure.Examined
) -> list[dict[str, float]]:
    """What each of `request.alphas` measures: 0 is before, 1 is after; attacks are PGD at the largest radius.

    Raises:
        StudioError: The two are not the same architecture.
    """
    eps, points = max(request.attacks.eps), []
    names = () if request.corruptions == "none" else BENCHMARK
    disturbed = [measure.corrupted(examined, name, SEVERITY) for name in names]
    for alpha in request.alphas:
        model = interpolated(before, after, alpha).eval()
        point = {"alpha": alpha, "clean": accuracy(measure.logits(model, examined), examined.labels)}
        if disturbed:
            right = [accuracy(measure.logits(model, seen), seen.labels) for seen in disturbed]
            point[f"corrupted, severity {SEVERITY}"] = sum(right) / len(right)
        attacker = Attacker(model, request.attacks, request.seed)
        stands = measure.attacked(attacker, model, examined, "pgd", eps)
        point[f"pgd-{request.attacks.steps} {request.attacks.told(eps)}"] = stands.accuracy
        points.append(point)
    return points
