"""The Sample page: draw with a model, artifacts and edits, or with a run that still trains; compare along two axes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from studio import recipes
from studio.errors import StudioError
from studio.grid import AXES, axes
from studio.models.config import FLOW_SCHEDULERS, SCHEDULERS
from studio.supervisor import least_busy
from ui import drawn, parts, requests
from ui.page import QUICK, SECONDS, SETS, Page, shown_error
from ui.weights import Weights

_FILES = "a model and its artifacts"


def build(page: Page) -> None:
    """Draw the page."""
    SamplePage(page)


class SamplePage:
    """The components of the page, and what they do."""

    def __init__(self, page: Page) -> None:
        self.page, self.workspace = page, page.workspace
        self.job, self.ask = gr.State(0), gr.State(0)
        with gr.Row(equal_height=False):
            with gr.Column(scale=5, min_width=300):
                self._prompts()
                self.weights = Weights(page)
                self.recipe = gr.File(
                    label="Drop a PNG to take over its recipe",
                    file_types=[".png"],
                    height=110,
                    elem_id="recipe",
                )
            with gr.Column(scale=7, min_width=300):
                self.result = gr.HTML(
                    parts.nothing(
                        "Nothing drawn yet",
                        "Write a prompt and press Draw. Every picture carries the recipe that draws it again.",
                    ),
                    elem_id="result",
                )
                with gr.Accordion("Compare along two axes", open=False, elem_id="compare"):
                    self._grid()
                self.earlier = gr.HTML(elem_id="earlier-pictures")
        self._listen()

    def _prompts(self) -> None:
        self.source = gr.Dropdown([_FILES], value=_FILES, label="Draw with", elem_id="source")
        self.prompt = gr.Textbox(
            label="Prompt",
            lines=2,
            max_lines=8,
            placeholder="a sticker of a unicorn on a blue background",
            info="One a line; each is drawn.",
            elem_id="prompt",
        )
        self.negative = gr.Textbox(label="Not to draw", elem_id="negative")
        with gr.Row():
            self.draw = gr.Button("Draw", variant="primary", elem_id="draw")
            self.stop = gr.Button("Stop", elem_id="stop-drawing")
        small: dict[str, Any] = {"min_width": 110}
        with gr.Row():
            self.count = gr.Number(4, precision=0, label="Pictures a prompt", elem_id="count", **small)
            self.seed = gr.Number(0, precision=0, label="Seed", elem_id="seed", **small)
            self.steps = gr.Number(20, precision=0, label="Sampler steps", elem_id="steps", **small)
            self.guidance = gr.Number(4.0, label="Guidance", elem_id="guidance", **small)
        with gr.Accordion("Sampler and size", open=False), gr.Row():
            self.scheduler = gr.Dropdown(
                ["", *SCHEDULERS, *FLOW_SCHEDULERS],
                value="",
                label="Sampler",
                info="Empty: the model's own.",
                **small,
            )
            self.width = gr.Number(0, precision=0, label="Width", info="0: the model's own.", **small)
            self.height = gr.Number(0, precision=0, label="Height", info="0: the model's own.", **small)

    def _grid(self) -> None:
        with gr.Row():
            self.x = gr.Dropdown(
                list(AXES), value="strength", label="From left to right", elem_id="axis-x", min_width=140
            )
            self.xs = gr.Textbox(
                "0, 0.5, 1",
                label="Values",
                info="Separated by commas; prompts by lines.",
                elem_id="values-x",
                min_width=180,
            )
        with gr.Row():
            self.y = gr.Dropdown(
                ["", *AXES], value="seed", label="From top to bottom", elem_id="axis-y", min_width=140
            )
            self.ys = gr.Textbox("0, 1", label="Values", elem_id="values-y", min_width=180)
        self.compare = gr.Button("Draw the grid", elem_id="draw-grid")

    def _plain(self) -> list[Any]:
        """What is asked for, apart from what it is drawn with."""
        return [
            self.prompt,
            self.negative,
            self.count,
            self.seed,
            self.steps,
            self.guidance,
            self.scheduler,
            self.width,
            self.height,
        ]

    def _listen(self) -> None:
        inputs = [*self._plain(), *self.weights.inputs]
        shown = [self.result, self.job, self.ask]
        self.draw.click(self._draw, [self.source, *inputs], shown, **SETS)
        self.prompt.submit(self._draw, [self.source, *inputs], shown, **SETS)
        grid = [self.x, self.xs, self.y, self.ys]
        self.compare.click(self._compare, [*grid, *inputs], shown, **SETS)
        self.stop.click(lambda job: self.workspace.jobs.stop(job) if job else None, self.job, None, **QUICK)
        self.recipe.upload(
            shown_error(self._restore),
            self.recipe,
            [*self._plain(), *self.weights.restored, self.result],
            queue=False,
        )
        timer = gr.Timer(SECONDS / 2, active=False)
        for state in (self.job, self.ask):
            state.change(self._look, [self.job, self.ask], [self.result, timer, self.earlier], **QUICK)
        timer.tick(self._look, [self.job, self.ask], [self.result, timer, self.earlier], **QUICK)
        lists = [self.source, *self.weights.artifacts, self.earlier]
        for opened in (self.page.here["sample"].select, self.page.blocks.load):
            opened(self._lists, None, lists, **QUICK)

    def _lists(self) -> list[Any]:
        running = [
            (f"running: {job.title} (live weights)", f"job {job.id}")
            for job in self.workspace.jobs.running()
            if job.run
        ]
        source = gr.Dropdown(choices=[_FILES, *running])
        return [source, *self.weights.choices(), drawn.earlier(self.workspace)]

    def _request(self, given: Sequence[Any]) -> dict[str, Any]:
        return requests.build(self.workspace, given, self.weights.edits)

    def _draw(self, source: str, *given: Any) -> Any:
        try:
            request = self._request(given)
            if source.startswith("job "):
                ask = self.workspace.jobs.ask(int(source[4:]), {"request": request | {"model": ""}})
                return parts.note("Asked; the run answers after its present step."), 0, ask
            title = request["prompt"][0][:60]
            device = least_busy(self.workspace.jobs)
            job = self.workspace.jobs.add("sample", {"request": request}, title=title, device=device)
        except StudioError as error:
            return parts.note(str(error), "error"), 0, 0
        return self.page.told(job), job, 0

    def _compare(self, x: str, xs: str, y: str, ys: str, *given: Any) -> Any:
        try:
            payload = {"request": self._request(given)} | {
                side: {"axis": axis or "", "values": self._values(axis, text) if axis else []}
                for side, axis, text in (("x", x, xs), ("y", y, ys))
            }
            axes(payload)
            device = least_busy(self.workspace.jobs)
            job = self.workspace.jobs.add(
                "grid", payload, title=f"Grid of {x} and {y or 'nothing'}", device=device
            )
        except StudioError as error:
            return parts.note(str(error), "error"), 0, 0
        return self.page.told(job), job, 0

    def _values(self, axis: str, text: str) -> list[str]:
        found = text.splitlines() if axis == "prompt" else text.replace("\n", ",").split(",")
        found = [value.strip() for value in found if value.strip()]
        if not found:
            raise StudioError(f"The axis {axis!r} has no values; write some, such as 0, 0.5, 1.", field=axis)
        return [self.workspace.weights(value) for value in found] if axis == "artifact" else found

    def _look(self, job: int, ask: int) -> Any:
        """What the open request has come to; the timer rests once it is done."""
        if ask:
            return self._answer(ask)
        if not job:
            return gr.skip(), gr.Timer(active=False), gr.skip()
        found = self.workspace.jobs.get(job)
        if found.is_open:
            return self.page.told(job), gr.Timer(active=True), gr.skip()
        if found.state != "done":
            return self.page.told(job), gr.Timer(active=False), gr.skip()
        shown = (
            drawn.sheet(self.workspace, found.result)
            if found.kind == "grid"
            else drawn.gallery(self.workspace, found.result["pictures"])
        )
        return shown, gr.Timer(active=False), drawn.earlier(self.workspace)

    def _answer(self, ask: int) -> Any:
        found = self.workspace.jobs.get_ask(ask)
        if found.state == "queued":
            return gr.skip(), gr.Timer(active=True), gr.skip()
        if found.state == "failed":
            return parts.note(found.error, "error"), gr.Timer(active=False), gr.skip()
        told = f"From the live weights at step {found.result['step']}, in {found.result['seconds']:.1f} s between two steps."
        return (
            parts.note(told, "good") + drawn.gallery(self.workspace, found.result["pictures"]),
            gr.Timer(active=False),
            gr.skip(),
        )

    def _restore(self, path: str) -> list[Any]:
        found = recipes.read(Path(path))
        plain = (
            "\n".join(found.prompt),
            found.negative,
            found.num_images,
            found.seed,
            found.steps,
            found.guidance,
            found.scheduler,
            found.width,
            found.height,
        )
        told = parts.note("The recipe is taken over; press Draw.", "good")
        return [*plain, *self.weights.restore(found), told]
