"""One HTML file that shows what a run did: pictures before and after, scores, curves, settings. No torch."""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from studio.metrics.table import Row
from studio.records.runs import RunFolder, settings_of
from studio.reports.charts import Curve
from studio.reports.html import TRAINED, Column, Page


def summary(rows: Sequence[Row]) -> str:
    """The table in one or two sentences, for people who read no tables."""
    found = {row.name: row for row in rows}
    sentences = []
    if (row := found.get("likeness")) and row.base and row.change:
        way = ""
        if row.ceiling and row.ceiling > row.base.mean and row.verdict != "even":
            share = row.change.mean / (row.ceiling - row.base.mean)
            way = f", {share:.0%} of the way to true pictures ({row.ceiling:.2f})"
        told = {"better": "rose", "worse": "fell", "even": "did not change clearly:"}[row.verdict]
        sentences.append(
            f"Likeness to the subject {told} from {row.base.mean:.2f} to {row.tuned.mean:.2f}{way}."
        )
    if (row := found.get("pixel_distance")) and row.base and row.verdict != "even":
        told = "fell" if row.verdict == "better" else "rose"
        sentences.append(
            f"The distance to true pictures {told} from {row.base.mean:.0f} to {row.tuned.mean:.0f} levels."
        )
    if row := found.get("background"):
        sentences.append(
            f"{row.tuned.mean:.0%} of the pictures have the background color that the prompt names."
        )
    if row := found.get("prior_drift"):
        sentences.append(f"Pictures of the plain class changed by {row.tuned.mean:.2f} (0 is not at all).")
    return " ".join(sentences)


def curves(folder: RunFolder) -> list[Curve]:
    """Losses, validation loss and preview scores of a run, from its events."""
    steps = list(folder.read_events("step"))
    known = {"event", "time", "step", "seconds", "images_per_second", "memory_gib", "lr", "grad_norm"}
    losses = [name for name in (steps[-1] if steps else {}) if name not in known]
    found = [Curve(_title(name), _points(steps, name), smooth=True) for name in losses]
    found.append(Curve("Validation loss", _points(folder.read_events("validation"), "loss")))
    previews = list(folder.read_events("preview"))
    names = dict.fromkeys(
        name
        for event in previews
        for name, value in event.get("scores", {}).items()
        if isinstance(value, (int, float))
    )
    for name in names:
        points = _points([{"step": e.get("step", 0)} | e.get("scores", {}) for e in previews], name)
        best = max(points, key=lambda p: p[1])[0] if name == "quality" else None
        found.append(Curve(f"{_title(name)} while training", points, mark=best))
    first = {
        tuple(curve.points): curve for curve in reversed(found)
    }  # a part that is all of the loss says nothing new
    return [c for c in found if len(c.points) > 1 and first[tuple(c.points)] is c]


def from_run(folder: RunFolder) -> Page:
    """What a run folder alone can show: its previews before and after, its curves and settings."""
    events = list(folder.read_events())
    settings = settings_of(folder.config)
    previews = [e for e in events if e["event"] == "preview" and {"folder", "prompts"} <= e.keys()]
    last = previews[-1] if previews else {"prompts": ()}
    shown = [(previews[0], "Before")] if len(previews) > 1 else []
    shown += [(last, TRAINED)] if previews else []
    columns = [
        Column(title, _samples(folder.samples / Path(event["folder"]).name, len(event["prompts"])))
        for event, title in shown
    ]
    return Page(
        title=folder.path.name,
        facts=facts(settings, events),
        prompts=last["prompts"],
        columns=columns,
        curves=curves(folder),
        settings=settings,
        command=shlex.join(
            ["studio", "train", "--config", str(folder.config), "--name", f"{folder.path.name}-again"]
        ),
    )


def facts(settings: Mapping[str, Any], events: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """What a person asks first about a run: method, model, steps, time, hardware."""
    method, loop = (
        found if isinstance(found := settings.get(k), Mapping) else {} for k in ("method", "loop")
    )
    found = [("Method", str(method.get("kind", ""))), ("Model", str(method.get("model", "")))]
    if isinstance(adapter := method.get("adapter"), Mapping):
        found.append(("Weights", str(adapter.get("kind", ""))))
    wanted, done = (
        loop.get("steps", ""),
        max((e.get("step", 0) for e in events), default=0),
    )
    found.append(("Steps", f"{done} of {wanted}" if 0 < done != wanted else str(wanted)))
    spent = [e["seconds"] for e in events if e["event"] in ("done", "stopped") and "seconds" in e]
    if spent:  # one number for each time that the run was taken up
        found.append(("Training time", _duration(sum(spent))))
    for event in events:
        if event["event"] == "start":
            told = [("Model taken for", "model"), ("Preset", "preset")]
            found += [(title, str(event.get(key, ""))) for title, key in told]
            found += [
                ("Hardware", f.removeprefix("device: "))
                for f in event.get("facts", ())
                if f.startswith("device: ")
            ]
    return [(name, value) for name, value in dict(found).items() if value]


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"


def _title(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _points(events: Iterable[Mapping[str, Any]], name: str) -> list[tuple[float, float]]:
    return [(e.get("step", 0), e[name]) for e in events if isinstance(e.get(name), (int, float))]


def _samples(folder: Path, num_prompts: int) -> list[list[Path]]:
    """The files of a preview, by prompt (they are numbered prompt by prompt)."""
    files = sorted(folder.glob("*.png"), key=lambda p: int(p.stem))
    each = max(1, len(files) // max(1, num_prompts))
    return [files[i : i + each] for i in range(0, len(files), each)]
