"""The Runs page: the queue, every run with its curves, pictures, log and settings, and several side by side."""

import time
from collections.abc import Sequence
from typing import Any

import gradio as gr
import yaml

from studio.errors import StudioError
from studio.queue.jobs import Job
from studio.queue.supervisor import kill
from studio.records import runs
from ui import charts, parts, records, run_view
from ui.page import QUICK, SECONDS, SETS, Page, clickable, picked
from ui.records import Record
from ui.train import filled

_RECENT = 3600.0
"""Seconds for which the queue still shows a run that failed before it had a folder."""


class RunsPage:
    """The components of the page, and what they do."""

    def __init__(self, page: Page) -> None:
        self.page, self.workspace = page, page.workspace
        self.seen = gr.State("")
        with gr.Row(equal_height=False):
            with gr.Column(scale=3, min_width=260):
                self.queue, self.cards = clickable("queue"), clickable("run-cards")
            with gr.Column(scale=9, min_width=300):
                self._detail()
        with gr.Accordion("Compare runs", open=False, elem_id="compare-fold"):
            told = "Two to six runs: their curves in one figure, and the settings in which they differ."
            most: dict[str, Any] = {"multiselect": True, "max_choices": charts.COLORS}
            self.several = gr.Dropdown([], label="Runs", elem_id="compare-runs", info=told, **most)
            self.together = gr.HTML(elem_id="together")
        page.timer = gr.Timer(SECONDS)
        self._listen()
        self._act()

    def _detail(self) -> None:
        self.header = clickable("run-header")
        with gr.Row(elem_id="run-actions"):
            small: dict[str, Any] = {"size": "sm", "min_width": 90, "visible": False}
            self.stop = gr.Button("Stop", elem_id="stop", **small)
            self.kill = gr.Button("Kill", variant="stop", elem_id="kill", **small)
            self.resume = gr.Button("Resume", elem_id="resume", **small)
            self.clone = gr.Button("Clone", elem_id="clone", **small)
            self.discard = gr.Button("Move to trash", elem_id="discard", **small)
        self.told = gr.HTML(elem_id="run-told")
        self.pictures = gr.HTML(elem_id="run-pictures")
        self.step = gr.Slider(0, 1, value=1, step=1, label="Pictures at step", visible=False, elem_id="step")
        self.curves = gr.HTML(elem_id="curves")
        with gr.Column(visible=False) as self.more:
            with gr.Row():
                weight: dict[str, Any] = {"value": 0.6, "step": 0.05, "elem_id": "smooth", "min_width": 200}
                self.smooth = gr.Slider(0, 0.95, label="Smoothing", **weight)
                self.every = gr.Radio(["Main", "All"], value="Main", label="Curves", min_width=200)
            with gr.Accordion("Log", open=False):
                self.log = gr.HTML(elem_id="log")
            with gr.Accordion("Settings", open=False):
                self.settings = gr.Code(language="yaml", interactive=False, show_label=False)

    def _listen(self) -> None:
        """What keeps the page up to date."""
        name, opened = self.page.picked, (self.page.here["runs"].select, self.page.blocks.load)
        views = [self.header, self.curves, self.log, self.pictures, self.step]
        buttons = [self.stop, self.kill, self.resume, self.clone, self.discard, self.more]
        shown = [self.seen, self.queue, self.cards, *views, *buttons]
        given = [name, self.seen, self.step, self.smooth, self.every]
        self.page.timer.tick(self._refresh, given, shown, **QUICK)
        for trigger in (name.change, self.smooth.release, self.every.change, *opened):
            trigger(lambda *args: self._refresh(args[0], "", *args[2:]), given, shown, **QUICK)
        for trigger in opened:
            trigger(self._first, name, name, **SETS)
            trigger(lambda: gr.Dropdown(choices=self.workspace.run_names()), None, [self.several], **QUICK)
        name.change(lambda: gr.Timer(active=True), None, self.page.timer, **QUICK)
        name.change(self._settings, name, [self.settings, self.told], **QUICK)

    def _act(self) -> None:
        """What a person can do on it."""
        name, act = self.page.picked, self.page.act
        self.cards.click(picked, None, name, **SETS)
        self.page.manages(self.queue)
        self.page.manages(self.header)
        self.step.input(self._pictures_at, [name, self.step], self.pictures, **QUICK)
        act(self.stop.click, self._stop, name, [self.told], **QUICK)
        act(self.kill.click, self._kill, name, [self.told], **QUICK)
        act(self.resume.click, self._resume, name, [self.told], **QUICK)
        act(self.discard.click, self._discard, name, [self.told, name], **SETS)
        act(self.clone.click, self._clone, name, [self.told, *self.page.form, self.page.tabs], **SETS)
        for trigger in (self.several.input, self.smooth.release):
            trigger(self._together, [self.several, self.smooth], self.together, **QUICK)

    def _first(self, name: str) -> str:
        """The run to show when the page is opened: the picked one, else the newest."""
        return name or next(iter(self.workspace.run_names()), "")

    def _all(self) -> tuple[list[Record], list[Job]]:
        found = []
        for name in self.workspace.run_names():
            try:
                found.append(records.read(self.workspace, name))
            except (OSError, ValueError, StudioError):  # being written, or moved away, right now
                continue
        return found, records.newest_jobs(self.workspace.jobs)

    def _refresh(self, name: str, seen: str, at: float, smooth: float, every: str) -> Any:
        """Everything that may have changed; nothing, if nothing has."""
        found, jobs = self._all()
        name = name or next((record.name for record in found), "")
        now = _fingerprint(name, found, jobs)
        if now == seen:
            return [gr.skip()] * 14
        queue, cards = self._queue(found, jobs), self._cards(found, jobs, name)
        record = next((each for each in found if each.name == name), None)
        job = next((each for each in jobs if each.title == name and each.run), None)
        if record is None:
            header = self.page.told(job.id) if job else _welcome(bool(found))
            return [now, queue, cards, header, "", "", "", gr.Slider(visible=False), *self._allowed("", None)]
        job = records.job_of(jobs, record)
        state = records.status(record, job)
        return [
            *(now, queue, cards, run_view.header(record, state, job)),
            run_view.curves(record, smooth, every=every == "All"),
            run_view.log(self.workspace.jobs.log(job.id) if job else None),
            *self._pictures(record, at),
            *self._allowed(state, job),
        ]

    def _queue(self, found: Sequence[Record], jobs: Sequence[Job]) -> str:
        """What runs and waits, and what has just failed; what has a run's folder is told by its card."""
        names, since = {record.name for record in found}, time.time() - _RECENT
        lost = [job for job in jobs if job.state == "failed" and job.run and job.ended > since]
        working = [job for job in jobs if job.state == "running"]
        shown = [job for job in [*working, *lost] if not job.run or job.title not in names]
        blocks = [self.page.block(job) for job in [*shown, *self.workspace.jobs.queue()]]
        return parts.section("Queue", f'<div class="cards short">{"".join(blocks)}</div>') if blocks else ""

    def _cards(self, found: Sequence[Record], jobs: Sequence[Job], chosen: str) -> str:
        cards = []
        for record in found:
            state = records.status(record, records.job_of(jobs, record))
            line = f"{record.method} · step {record.step} of {record.total}"
            part = record.step / max(record.total, 1) if state == "running" else -1
            mine = record.name == chosen
            cards.append(parts.card(record.name, record.name, state, line=line, part=part, chosen=mine))
        return parts.section("Runs", f'<div class="cards">{"".join(cards)}</div>') if cards else ""

    def _allowed(self, state: str, job: Job | None) -> list[Any]:
        """Which buttons make sense now."""
        running, ended = bool(job and job.is_open), state not in ("", "running", "queued")
        stuck = bool(job and job.state == "running" and job.wanted)
        has = [running, stuck, ended and state != "done", bool(state), ended]
        return [*(gr.Button(visible=visible) for visible in has), gr.Column(visible=bool(state))]

    def _pictures(self, record: Record, at: float) -> tuple[Any, Any]:
        steps = records.steps_of(record.folder.samples)
        if not steps:
            return "", gr.Slider(visible=False)
        step = at if at in steps else steps[-1]
        each = steps[1] - steps[0] if len(steps) > 1 else 1
        bounds: dict[str, Any] = {"minimum": steps[0], "maximum": max(steps[-1], steps[0] + 1), "step": each}
        return self._gallery(record, step), gr.Slider(value=step, visible=len(steps) > 1, **bounds)

    def _gallery(self, record: Record, step: float) -> str:
        best, why = record.best()
        told = f" · best: {why}" if step == best and why else ""
        shown = parts.gallery(self.workspace, records.pictures(record, int(step)))
        return parts.section(f"Pictures at step {step:g}{told}", shown)

    def _pictures_at(self, name: str, at: float) -> str:
        record = records.read(self.workspace, name)
        steps = records.steps_of(record.folder.samples)
        return self._gallery(record, min(steps, key=lambda step: abs(step - at))) if steps else ""

    def _settings(self, name: str) -> tuple[str, str]:
        if name not in self.workspace.run_names():
            return "", ""
        return yaml.safe_dump(dict(records.read(self.workspace, name).settings), sort_keys=False), ""

    def _job(self, name: str) -> Job:
        jobs = [job for job in records.newest_jobs(self.workspace.jobs) if job.is_open and job.run]
        found = next((job for job in jobs if job.title == name), None)
        if found is None:
            raise StudioError(f"Run {name!r} has no open job.")
        return found

    def _stop(self, name: str) -> str:
        job = self._job(name)
        self.workspace.jobs.stop(job.id)
        waited = job.state == "queued"
        return parts.note(
            "Canceled." if waited else "Stopping after this step; it is saved and can be resumed."
        )

    def _kill(self, name: str) -> str:
        kill(self.workspace.jobs, self._job(name).id)
        return parts.note("Killed; resume goes on from the last checkpoint.")

    def _resume(self, name: str) -> str:
        folder = self.workspace.run(name).path
        self.workspace.submit("resume", {"run": str(folder)}, name, run=folder)
        return parts.note("Waiting to go on from the last checkpoint.")

    def _discard(self, name: str) -> tuple[str, str]:
        kept = self.workspace.discard(self.workspace.run(name).path)
        return parts.note(f"Moved to {self.workspace.relative(kept)}."), self._first("")

    def _clone(self, name: str) -> list[Any]:
        _, run = runs.open_run(self.workspace.run(name).path)
        return ["", *filled(run.to_dict() | {"name": ""}), gr.Tabs(selected="train")]

    def _together(self, names: list[str], smooth: float) -> str:
        return run_view.side_by_side([records.read(self.workspace, name) for name in names or []], smooth)


def _fingerprint(name: str, found: Sequence[Record], jobs: Sequence[Job]) -> str:
    runs_now = [(record.name, record.changed) for record in found]
    jobs_now = [(job.id, job.state, job.position, job.wanted, round(job.progress, 3)) for job in jobs[:40]]
    return f"{name} {hash((tuple(runs_now), tuple(jobs_now)))}"


def _welcome(has_runs: bool) -> str:
    if has_runs:
        return parts.nothing("Pick a run", "Its curves, pictures, log and settings appear here.")
    text = "Start one on the Train page, or with the command: studio train dreambooth --data DIR. It shows up here at once."
    return parts.nothing("No runs yet", text)
