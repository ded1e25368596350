"""The Runs page: the queue, every run with its curves, pictures, log and settings, and several side by side."""

from collections.abc import Sequence
from html import escape
from typing import Any

import gradio as gr

from studio import runs
from studio.errors import StudioError
from studio.jobs import Job
from studio.supervisor import kill, least_busy
from ui import charts, parts, records, run_view
from ui.page import QUICK, SECONDS, SETS, Page, shown_error
from ui.records import Record
from ui.theme import PICK
from ui.train import shape_of


def build(page: Page) -> None:
    """Draw the page."""
    RunsPage(page)


class RunsPage:
    """The components of the page, and what they do."""

    def __init__(self, page: Page) -> None:
        self.page, self.workspace = page, page.workspace
        self.seen = gr.State("")
        with gr.Row(equal_height=False):
            with gr.Column(scale=3, min_width=260):
                self.queue = gr.HTML(elem_id="queue")
                self.cards = gr.HTML(elem_id="run-cards", js_on_load=PICK)
            with gr.Column(scale=9, min_width=300):
                self._detail()
        with gr.Accordion("Compare runs", open=False):
            self._compare()
        self.timer = page.timer = gr.Timer(SECONDS)
        self._listen()

    def _detail(self) -> None:
        self.header = gr.HTML(elem_id="run-header")
        with gr.Row(elem_id="run-actions") as self.actions:
            small: dict[str, Any] = {"size": "sm", "min_width": 90}
            self.stop = gr.Button("Stop", elem_id="stop", **small)
            self.kill = gr.Button("Kill", variant="stop", elem_id="kill", **small)
            self.resume = gr.Button("Resume", elem_id="resume", **small)
            self.clone = gr.Button("Clone", elem_id="clone", **small)
            self.earlier = gr.Button("Earlier in queue", elem_id="earlier", **small)
            self.discard = gr.Button("Move to trash", elem_id="discard", **small)
        self.told = gr.HTML(elem_id="run-told")
        self.pictures = gr.HTML(elem_id="run-pictures")
        self.step = gr.Slider(0, 1, value=1, step=1, label="Pictures at", visible=False, elem_id="step")
        self.curves = gr.HTML(elem_id="curves")
        with gr.Column(visible=False) as self.more:
            with gr.Row():
                self.smooth = gr.Slider(
                    0, 0.95, value=0.6, step=0.05, label="Smoothing", elem_id="smooth", min_width=200
                )
                self.every = gr.Radio(["Main", "All"], value="Main", label="Curves", min_width=200)
            with gr.Accordion("Log", open=False):
                self.log = gr.HTML(elem_id="log")
            with gr.Accordion("Settings", open=False):
                self.settings = gr.Code(language="yaml", interactive=False, show_label=False)

    def _compare(self) -> None:
        self.several = gr.Dropdown(
            [],
            multiselect=True,
            max_choices=charts.COLORS,
            label="Runs",
            elem_id="compare-runs",
            info="Two to six runs: their curves in one figure, and the settings in which they differ.",
        )
        self.together = gr.HTML(elem_id="together")
        self.several.input(
            self._together,
            [self.several, self.smooth],
            self.together,
            queue=False,
            show_progress="hidden",
        )

    def _listen(self) -> None:
        """What keeps the page up to date."""
        picked, opened = self.page.picked, (self.page.here["runs"].select, self.page.blocks.load)
        views = [self.header, self.curves, self.log, self.pictures, self.step]
        shown = [self.seen, self.queue, self.cards, *views, *self._buttons()]
        given = [picked, self.seen, self.step, self.smooth, self.every]
        self.timer.tick(self._refresh, given, shown, **QUICK)
        for trigger in (picked.change, self.smooth.release, self.every.change, *opened):
            trigger(lambda *args: self._refresh(args[0], "", *args[2:]), given, shown, **QUICK)
        for trigger in opened:
            trigger(self._first, picked, picked, **SETS)
            trigger(lambda: gr.Dropdown(choices=self.workspace.run_names()), None, [self.several], **QUICK)
        picked.change(lambda: gr.Timer(active=True), None, self.timer, **QUICK)
        picked.change(self._settings, picked, [self.settings, self.told], **QUICK)
        self._act(picked)

    def _act(self, picked: gr.State) -> None:
        """What a person can do on it."""
        self.cards.click(_picked, None, picked, **SETS)
        self.step.input(self._pictures_at, [picked, self.step], self.pictures, **QUICK)
        buttons = {
            self.stop: self._stop,
            self.kill: self._kill,
            self.resume: self._resume,
            self.earlier: self._earlier,
        }
        for button, function in buttons.items():
            button.click(shown_error(function), picked, self.told, **QUICK)
        self.discard.click(shown_error(self._discard), picked, [picked, self.told], **SETS)
        self.clone.click(shown_error(self._clone), picked, [self.page.shape, self.page.tabs], **SETS)

    def _buttons(self) -> list[Any]:
        return [self.stop, self.kill, self.resume, self.clone, self.earlier, self.discard, self.more]

    def _first(self, picked: str) -> str:
        """The run to show when the page is opened: the picked one, else the newest."""
        return picked or next(iter(self.workspace.run_names()), "")

    def _all(self) -> tuple[list[Record], list[Job]]:
        found = []
        for name in self.workspace.run_names():
            try:
                found.append(records.read(self.workspace, name))
            except (OSError, ValueError, StudioError):  # being written, or moved away, right now
                continue
        return found, records.newest_jobs(self.workspace.jobs)

    def _refresh(self, picked: str, seen: str, at: float, smooth: float, every: str) -> Any:
        """Everything that may have changed; nothing, if nothing has."""
        found, jobs = self._all()
        now = _fingerprint(picked, found, jobs)
        if now == seen:
            return [gr.skip()] * 15
        queue, cards = self._queue(jobs), self._cards(found, jobs, picked)
        record = next((each for each in found if each.name == picked), None)
        job = next((each for each in jobs if each.title == picked and each.run), None)
        if record is None:
            header = self.page.told(job.id) if job else _welcome(bool(found))
            return [now, queue, cards, header, "", "", "", gr.Slider(visible=False), *self._allowed("", job)]
        job = records.job_of(jobs, record)
        state = records.status(record, job)
        return [
            *(now, queue, cards, run_view.header(record, state, job)),
            run_view.curves(record, smooth, every=every == "All"),
            run_view.log(self.workspace.jobs.log(job.id) if job else None),
            *self._pictures(record, at),
            *self._allowed(state, job),
        ]

    def _queue(self, jobs: Sequence[Job]) -> str:
        """What runs and waits; what is a run's is told by its card."""
        waiting = self.workspace.jobs.queue()
        shown = [job for job in jobs if job.state == "running" and not job.run] + waiting
        blocks = [parts.job(self.workspace, job, self.page.place(job)) for job in shown]
        return f'<h3 class="part">Queue</h3><div class="cards">{"".join(blocks)}</div>' if blocks else ""

    def _cards(self, found: Sequence[Record], jobs: Sequence[Job], picked: str) -> str:
        if not found:
            return ""
        cards = []
        for record in found:
            state = records.status(record, records.job_of(jobs, record))
            line = f"{record.method} · step {record.step} of {record.total}"
            part = record.step / max(record.total, 1) if state == "running" else -1
            cards.append(
                parts.card(
                    record.name, record.name, state, line=line, part=part, chosen=record.name == picked
                )
            )
        return f'<h3 class="part">Runs</h3><div class="cards">{"".join(cards)}</div>'

    def _allowed(self, state: str, job: Job | None) -> list[Any]:
        """Which buttons make sense now."""
        queued, running = bool(job and job.state == "queued"), bool(job and job.state == "running")
        ended = state not in ("", "running", "queued")
        has = [
            queued or running,
            bool(running and job and job.wanted),
            ended and state != "done",
            bool(state),
            queued,
            ended,
        ]
        return [*(gr.Button(visible=visible) for visible in has), gr.Column(visible=bool(state))]

    def _pictures(self, record: Record, at: float) -> tuple[Any, Any]:
        steps = records.steps_of(record.folder.samples)
        if not steps:
            return "", gr.Slider(visible=False)
        step = min(steps, key=lambda each: abs(each - at)) if at in steps and at != steps[-1] else steps[-1]
        each = steps[1] - steps[0] if len(steps) > 1 else 1
        slider = gr.Slider(
            steps[0], max(steps[-1], steps[0] + 1), value=step, step=each, visible=len(steps) > 1
        )
        return self._gallery(record, step), slider

    def _gallery(self, record: Record, step: int) -> str:
        best, why = records.Record.best(record)
        told = f" · best: {why}" if step == best and why else ""
        title = f'<h3 class="part">Pictures at step {step}{escape(told)}</h3>'
        return title + parts.gallery(self.workspace, records.pictures(record, step))

    def _pictures_at(self, name: str, at: float) -> str:
        record = records.read(self.workspace, name)
        steps = records.steps_of(record.folder.samples)
        return self._gallery(record, min(steps, key=lambda step: abs(step - at))) if steps else ""

    def _settings(self, name: str) -> tuple[str, str]:
        if name not in self.workspace.run_names():
            return "", ""
        import yaml

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
        return parts.note(
            "Canceled."
            if job.state == "queued"
            else "Stopping after this step; it is saved and can be resumed."
        )

    def _kill(self, name: str) -> str:
        kill(self.workspace.jobs, self._job(name).id)
        return parts.note("Killed; resume goes on from the last checkpoint.")

    def _earlier(self, name: str) -> str:
        self.workspace.jobs.move(self._job(name).id, up=True)
        return parts.note("Moved up.")

    def _resume(self, name: str) -> str:
        folder = self.workspace.run(name)
        payload = {"run": str(folder.path)}
        self.workspace.jobs.add(
            "resume", payload, title=name, device=least_busy(self.workspace.jobs), run=str(folder.path)
        )
        return parts.note("Waiting to go on from the last checkpoint.")

    def _discard(self, name: str) -> tuple[str, str]:
        kept = self.workspace.discard(self.workspace.run(name).path)
        return "", parts.note(f"Moved to {self.workspace.relative(kept)}.")

    def _clone(self, name: str) -> Any:
        _, run = runs.open_run(self.workspace.run(name).path)
        shape, _, _ = shape_of(runs.dump(run) | {"name": ""})
        return shape, gr.Tabs(selected="train")

    def _together(self, names: list[str], smooth: float) -> str:
        return run_view.side_by_side([records.read(self.workspace, name) for name in names or []], smooth)


def _picked(event: gr.EventData) -> str:
    return str(event._data.get("pick", ""))


def _fingerprint(picked: str, found: Sequence[Record], jobs: Sequence[Job]) -> str:
    runs_now = [(record.name, record.changed) for record in found]
    jobs_now = [(job.id, job.state, job.position, job.wanted, round(job.progress, 3)) for job in jobs[:40]]
    return f"{picked} {hash((tuple(runs_now), tuple(jobs_now)))}"


def _welcome(has_runs: bool) -> str:
    if has_runs:
        return parts.nothing("Pick a run", "Its curves, pictures, log and settings appear here.")
    return parts.nothing(
        "No runs yet",
        "Start one on the Train page, or with the command: studio train dreambooth --data DIR. It shows up here at once.",
    )
