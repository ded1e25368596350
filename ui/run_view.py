"""What a run looks like: its head, its curves, and several runs side by side."""

import json
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from studio.queue.jobs import Job
from studio.settings import serial
from ui import charts, parts
from ui.records import Record

_MAIN = 4
"""Curves shown at once; the others are behind a switch."""
_QUIET = ("lr", "seconds", "images_per_second", "grad_norm", "memory_gib")
_TITLES = {"lr": "Learning rate", "seconds": "Seconds a step", "images_per_second": "Images a second",
           "grad_norm": "Gradient norm", "memory_gib": "Memory in GiB"}  # fmt: skip
_TOGETHER = 6
_LOG_BYTES = 12_000


def header(record: Record, state: str, job: Job | None) -> str:
    """Name, state and the first questions: how far, how fast, what is best and why."""
    step, best = record.last("step"), record.best()
    rate = f"{1 / step['seconds']:.2f} steps/s" if step.get("seconds") else ""
    left = (record.total - record.step) * step.get("seconds", 0.0)
    memory = f"{step['memory_gib']:.1f} GiB" if step.get("memory_gib") else ""
    found = [
        ("Step", f"{record.step} of {record.total}"),
        ("Preparing", record.preparing if state == "running" else ""),
        ("Left", parts.duration(left) if state == "running" and left else ""),
        ("Speed", rate),
        ("Memory", memory),
        ("Method", record.method),
        ("Model", str(record.settings.get("method", {}).get("model", ""))),
        ("Best checkpoint", f"step {best[0]}" if best[1] else ""),
    ]
    bar = parts.progress(record.step / max(record.total, 1), record.name) if state == "running" else ""
    told = (job.error if job else "") or record.last("failed").get("error", "")
    failed = told if state == "failed" else ""
    why = parts.note(f"Best: {best[1]}.") if best[1] else ""
    top = f'<span class="pair"><b style="font-size:17px">{escape(record.name)}</b>{parts.badge(state)}</span>'
    return f'<div class="job">{top}{bar}{parts.facts(found)}{why}{parts.note(failed, "error")}</div>'


def curves(record: Record, smooth: float, *, every: bool) -> str:
    """The run's figures: losses and scores, or every quantity it wrote down."""
    best, _ = record.best()
    found = record.curves()
    first = {
        tuple(points): name for name, points in reversed(found.items())
    }  # a part that is all of the loss
    main = [name for name in found if name not in _QUIET and first[tuple(found[name])] == name][:_MAIN]
    lines = {name: charts.Line("", found[name], best or None) for name in (found if every else main)}
    shown = "".join(charts.chart(_title(name), [line], smooth) for name, line in lines.items())
    if not shown:
        return parts.nothing("No curves yet", "They start with the second logged step.")
    return f'<div class="charts">{shown}</div>'


def _title(name: str) -> str:
    return _TITLES.get(name, name.replace("_", " ").capitalize())


def log(path: Path | None) -> str:
    """The end of what a worker printed."""
    if path is None or not path.exists():
        return parts.nothing("No log", "Runs that were started by the command print to its terminal.")
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _LOG_BYTES))
        text = file.read().decode("utf-8", "replace")
    return f'<pre class="log" tabindex="0">{escape(text)}</pre>'


def side_by_side(found: Sequence[Record], smooth: float) -> str:
    """Curves of several runs in one figure each, and the settings in which they differ."""
    if len(found) < 2:
        return parts.nothing(
            "Choose two runs", "Their curves share one figure, and the settings that differ are listed."
        )
    curves = [record.curves() for record in found]
    titles = [title for title in curves[0] if any(title in other for other in curves[1:])][:_TOGETHER]
    figures = [
        charts.chart(
            _title(t),
            [charts.Line(r.name, c.get(t, [])) for r, c in zip(found, curves, strict=True)],
            smooth,
        )
        for t in titles
    ]
    return (
        f'<div class="charts">{"".join(figures)}</div><h3 class="part">Settings that differ</h3>'
        + _differences(found)
    )


def _told(value: Any) -> str:
    """A setting as people read it: texts as they are, lists and nothing as YAML has them."""
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)


def _differences(found: Sequence[Record]) -> str:
    flat = [serial.flatten(record.settings) for record in found]
    names = sorted({name for each in flat for name in each} - {"name"})
    rows = [
        [name, *(_told(each.get(name, "not there")) for each in flat)]
        for name in names
        if len({str(each.get(name)) for each in flat}) > 1
    ]
    return parts.table(["setting", *(record.name for record in found)], rows) if rows else parts.note("None.")
