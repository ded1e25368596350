"""The evaluation of a dual encoder: what it knows, what finetuning gave it, and what it took.

found = evaluate(VlmEval(model="runs/flowers", data=Labelled(train="flowers")))
print(found.after["HM"], found.before["HM"])
"""

import copy
import json
import logging
import time
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

from studio.backend.core import Backend
from studio.matching.config import VlmEval
from studio.matching.examined import Examined, prepare
from studio.matching.files import Opened, load_matcher
from studio.matching.matcher import Matcher
from studio.matching.measure import measure, on_the_line
from studio.records import runs
from studio.reports.vlm import Measured, lead, write_page
from studio.settings import serial
from studio.vision.interpolate import put_between

log = logging.getLogger(__name__)


@dataclass
class Found:
    """What an evaluation found: measures by name, as fractions."""

    folder: Path
    facts: dict[str, str] = field(default_factory=dict)
    before: dict[str, float] = field(default_factory=dict)
    """Of the untouched model; empty where there is none."""
    after: dict[str, float] = field(default_factory=dict)
    line: list[dict[str, float]] = field(default_factory=list)
    """Accuracies along the weights between the two (WiSE-FT)."""

    @property
    def report(self) -> Path:
        """The HTML report."""
        return self.folder / "report.html"

    @property
    def scores(self) -> Path:
        """Every number as JSON."""
        return self.folder / "vlm.json"

    def told(self) -> str:
        """What changed, in a sentence."""
        return lead(self.rows())

    def rows(self) -> list[Measured]:
        """The table."""
        return [
            (name, old, value, None if old is None else value - old)
            for name, value in self.after.items()
            for old in [self.before.get(name)]
        ]


def evaluate(request: VlmEval) -> Found:
    """Measure a dual encoder and write table, JSON and report.

    Raises:
        StudioError: The model or the data cannot be read.
    """
    started = time.monotonic()
    backend = Backend(request.hardware)
    opened = load_matcher(request.model, request.templates)
    before = _before(request, opened)
    after = backend.place(opened.matcher).float()
    examined = prepare(request, after.model)
    found = Found(_folder(request))
    found.after = measure(after, examined, request.order)
    if before:
        backend.place(before).float()
        found.before = measure(before, examined, request.order)
        if opened.moved and opened.matcher.sees_names:
            found.line = _line(request, before, after, examined)
    found.facts = {
        "model": request.model,
        "before": before.model.name if before else "none",
        "data": request.data.test or request.data.train,
        "pictures": f"{len(examined.held_out.labels)} of {len(examined.held_out.classes)} classes",
        "pairs": request.pairs or "sticker scenes",
        "seed": str(request.seed),
        "libraries": ", ".join(
            f"{name} {version(name)}" for name in ("torch", "open_clip_torch", "transformers")
        ),
        "device": backend.device.type,
        "seconds": f"{time.monotonic() - started:.0f}",
    }
    _write(found, request)
    return found


def _before(request: VlmEval, opened: Opened) -> Matcher | None:
    """The model before finetuning."""
    if request.before == "none" or (request.before == "auto" and not opened.base):
        return None
    if request.before == "auto":
        return load_matcher(opened.base, request.templates, opened.pretrained).matcher
    return load_matcher(request.before, request.templates).matcher


def _line(request: VlmEval, before: Matcher, after: Matcher, examined: Examined) -> list[dict[str, float]]:
    """Accuracies between two models: 0 is before, 1 is after; nothing where their shapes differ."""
    first, last = (matcher.model.network.state_dict() for matcher in (before, after))
    if {k: v.shape for k, v in first.items()} != {k: v.shape for k, v in last.items()}:
        log.warning("no line of weights: %s and %s differ in shape", before.model.name, after.model.name)
        return []
    between = copy.deepcopy(after)
    points = []
    for alpha in request.alphas:
        put_between(between.model.network, first, last, alpha)
        points.append({"alpha": alpha, **on_the_line(between, examined, request.order)})
    return points


def _folder(request: VlmEval) -> Path:
    run = Path(request.model)
    given = Path(request.output) if request.output else (run if run.is_dir() else Path()) / "vlm"
    given.mkdir(parents=True, exist_ok=True)
    return given


def _write(found: Found, request: VlmEval) -> None:
    values = {
        "request": serial.to_dict(request),
        "facts": found.facts,
        "before": found.before,
        "after": found.after,
        "line": found.line,
    }
    runs.write_text(found.scores, json.dumps(values, indent=1) + "\n")
    write_page(found.facts, found.rows(), found.line, found.report)
