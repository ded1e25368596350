"""What the terminal shows: lines, tables, progress, events; or JSON for machines."""

import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_SHOWN = ("loss", "loss_instance", "loss_prior", "reward", "accuracy", "grad_norm", "lr", "images_per_second")


class Console:
    """Prints. With `json`, every fact is one JSON line on stdout and nothing else is; `silent` shows errors only."""

    def __init__(self, *, json: bool = False, silent: bool = False) -> None:
        self.json, self.silent = json, silent
        self._bar: Any = None
        self._task: Any = None
        self._preparing, self._total = "", 0

    def print(self, text: str) -> None:
        """A line for people."""
        if not self.json and not self.silent:
            print(text, flush=True)  # the console is what prints

    def page(self, text: str) -> None:
        """A text that was asked for as such, like help: printed for people and machines alike."""
        print(text, flush=True)

    def error(self, text: str) -> None:
        """A line on stderr; also as JSON where asked."""
        self.close()
        if self.json:
            self.record({"event": "error", "error": text})
        print(f"studio: {text}", file=sys.stderr, flush=True)

    def record(self, values: Mapping[str, Any]) -> None:
        """A fact for machines."""
        if self.json:
            print(json.dumps(_finite(dict(values)), default=str, allow_nan=False), flush=True)

    def table(self, header: Sequence[str], rows: Iterable[Sequence[object]], *, form: str = ".3f") -> None:
        """A table; as JSON one line a row, numbers as they are.

        Args:
            header: Names of the columns.
            rows: Cells; None is one without a value.
            form: How fractions are shown to people.
        """
        rows = [list(r) for r in rows]
        if self.json:
            for row in rows:
                self.record(dict(zip(header, row, strict=True)))
            return
        if self.silent:
            return
        from rich.console import Console as Rich
        from rich.table import Table

        table = Table(*header, box=None, header_style="bold")
        for row in rows:
            table.add_row(*(_shown(cell, form) for cell in row))
        Rich().print(table)

    def points(self, line: Sequence[Mapping[str, float]]) -> None:
        """Numbers along a line of weights as a table; nothing if there is no line."""
        if line:
            self.table(list(line[0]), [list(point.values()) for point in line])

    def progress(self, total: int, what: str, done: int = 0) -> None:
        """Start a progress bar, where there is a terminal to show it."""
        if self.json or self.silent or not sys.stderr.isatty():
            return
        from rich.console import Console as Rich
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, console=Rich(stderr=True))
        self._task = self._bar.add_task(what, total=total, completed=done)
        self._bar.start()

    def advance(self, done: int, text: str = "") -> None:
        """Move the progress bar."""
        if self._bar:
            self._bar.update(self._task, completed=done, **({"description": text} if text else {}))

    def close(self) -> None:
        """End the progress bar."""
        if self._bar:
            self._bar.stop()
            self._bar = None

    def event(self, event: Mapping[str, Any]) -> None:
        """Show one event of a run."""
        self.record(event)
        step = event.get("step", 0)
        match event["event"]:
            case "prepare":
                self._prepare(event)
            case "start":
                self._start(event, step)
            case "step":
                self._step(event, step)
            case "preview" | "validation" | "unsaved":
                self._scores(event, step)
            case "done" | "stopped" | "failed" as kind:
                self.close()
                self.print(f"{kind} at step {step}")
            case "export":
                for path in event["files"]:
                    self.print(f"exported: {path}")
            case _:
                pass

    def _step(self, event: Mapping[str, Any], step: int) -> None:
        text = " ".join(f"{k} {event[k]:.3g}" for k in _SHOWN if k in event)
        self.advance(step, text)
        if not self._bar:
            self.print(f"step {step}/{self._total} {text}")

    def _scores(self, event: Mapping[str, Any], step: int) -> None:
        if "error" in event:
            self.print(f"step {step}: {event['what']} not written, the run goes on: {event['error']}")
            return
        scores = event.get("scores", {}) | ({"validation loss": event["loss"]} if "loss" in event else {})
        what = f"pictures in {event['folder']}" if "folder" in event else ""
        told = [*(f"{k} {v:.4f}" for k, v in scores.items()), *([what] if what else [])]
        self.print(f"step {step}: {', '.join(told)}")

    def _prepare(self, event: Mapping[str, Any]) -> None:
        """How far the work before the first step is: a line for each piece of it, and a bar where its size is known."""
        if event["what"] != self._preparing:
            self.close()
            self._preparing = event["what"]
            self.print(
                f"preparing: {event['what']}" + (f", {event['total']} in all" if event["total"] else "")
            )
            if event["total"]:
                self.progress(event["total"], event["what"])
        self.advance(event["done"])

    def _start(self, event: Mapping[str, Any], step: int) -> None:
        self.close()
        for fact in event["facts"]:
            self.print(fact)
        resumed = f" (resumed at step {step})" if event["resumed"] else ""
        self.print(f"run folder: {event['folder']}{resumed}")
        self._total = event["steps"]
        self.progress(self._total, "training", step)


def _shown(cell: object, form: str) -> str:
    if cell is None:
        return ""
    return format(cell, form) if isinstance(cell, float) else str(cell)


def _finite(value: Any) -> Any:
    """A value as JSON knows it: a number that is none, or infinite, is null."""
    match value:
        case float():
            return value if math.isfinite(value) else None
        case Mapping():
            return {str(key): _finite(item) for key, item in value.items()}
        case list() | tuple():
            return [_finite(item) for item in value]
        case _:
            return value
