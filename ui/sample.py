"""The Sample page: draw with a model, artifacts and edits, or with a run that still trains; compare along two axes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from studio import catalog, recipes
from studio.errors import StudioError
from studio.grid import AXES, axes
from studio.models.config import FLOW_SCHEDULERS, SCHEDULERS
from studio.supervisor import least_busy
from ui import drawn, forms, parts, requests
from ui.page import QUICK, SECONDS, SETS, Page, shown_error
from ui.requests import NUM_ARTIFACTS, Edits

_FILES = "a model and its artifacts"
_SHOWN_EDIT = ("undesired", "strength", "rows", "protect", "max_rank", "energy")


def build(page: Page) -> None:
    """Draw the page."""
    SamplePage(page)


class SamplePage:
    """The components of the page, and what they do."""

    def __init__(self, page: Page) -> None:
        self.page, self.workspace = page, page.workspace
        self.job, self.ask = gr.State(0), gr.State(0)
        self.edits: Edits = []
        with gr.Row(equal_height=False):
            with gr.Column(scale=5, min_width=300):
                self._prompts()
                self._weights()
                self._edits()
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

    def _weights(self) -> None:
        self.model = gr.Textbox(
            label="Model",
            info="Empty: the one that the first run was trained on, or studio-tiny.",
            elem_id="model",
        )
        self.artifacts, self.strengths = [], []
        for number in range(NUM_ARTIFACTS):
            with gr.Row(visible=number == 0, equal_height=True) as row:
                self.artifacts.append(
                    gr.Dropdown(
                        self.workspace.artifacts(),
                        value=None,
                        label=f"Artifact {number + 1}",
                        elem_id=f"artifact-{number}",
                        scale=3,
                        min_width=180,
                    )
                )
                self.strengths.append(
                    gr.Slider(-1, 2, value=1, step=0.05, label="Strength", scale=2, min_width=140)
                )
            if number:
                self.artifacts[number - 1].input(lambda: gr.Row(visible=True), None, row, **QUICK)

    def _edits(self) -> None:
        """One block for each edit in the catalog, drawn from its settings."""
        cards = [catalog.card(name) for name in catalog.names()]
        for card in (each for each in cards if each.edit):
            with gr.Accordion(f"{card.title}: {card.summary}", open=False, elem_id=f"edit-{card.name}"):
                used = gr.Checkbox(False, label=f"Use {card.title}", elem_id=f"use-{card.name}")
                leaves = list(forms.leaves(card.config, {}, f"{card.name}."))
                shown = [leaf for leaf in leaves if leaf.name.rpartition(".")[2] in _SHOWN_EDIT] or leaves
                with gr.Row():
                    boxes = [
                        forms.draw(leaf, elem_id=leaf.name.replace(".", "-"), min_width=200) for leaf in shown
                    ]
                self.edits.append((card.name, shown, [used, *boxes]))
        self.recipe = gr.File(
            label="Drop a PNG to take over its recipe", file_types=[".png"], height=110, elem_id="recipe"
        )

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

    def _inputs(self) -> list[Any]:
        edits = [box for _, _, boxes in self.edits for box in boxes]
        plain = [
            self.prompt,
            self.negative,
            self.count,
            self.seed,
            self.steps,
            self.guidance,
            self.scheduler,
            self.width,
            self.height,
            self.model,
        ]
        return [*plain, *self.artifacts, *self.strengths, *edits]

    def _listen(self) -> None:
        inputs = self._inputs()
        shown = [self.result, self.job, self.ask]
        self.draw.click(self._draw, [self.source, *inputs], shown, **SETS)
        self.prompt.submit(self._draw, [self.source, *inputs], shown, **SETS)
        grid = [self.x, self.xs, self.y, self.ys]
        self.compare.click(self._compare, [*grid, *inputs], shown, **SETS)
        self.stop.click(lambda job: self.workspace.jobs.stop(job) if job else None, self.job, None, **QUICK)
        self.recipe.upload(
            shown_error(self._restore), self.recipe, [*self._restored(), self.result], queue=False
        )
        timer = gr.Timer(SECONDS / 2, active=False)
        for state in (self.job, self.ask):
            state.change(self._look, [self.job, self.ask], [self.result, timer, self.earlier], **QUICK)
        timer.tick(self._look, [self.job, self.ask], [self.result, timer, self.earlier], **QUICK)
        lists = [self.source, *self.artifacts, self.earlier]
        for opened in (self.page.here["sample"].select, self.page.blocks.load):
            opened(self._lists, None, lists, **QUICK)

    def _lists(self) -> list[Any]:
        running = [
            (f"running: {job.title} (live weights)", f"job {job.id}")
            for job in self.workspace.jobs.running()
            if job.run
        ]
        found = [("nothing", ""), *((name, name) for name in self.workspace.artifacts())]
        source = gr.Dropdown(choices=[_FILES, *running])
        return [source, *[gr.Dropdown(choices=found)] * NUM_ARTIFACTS, drawn.earlier(self.workspace)]

    def _request(self, given: Sequence[Any]) -> dict[str, Any]:
        return requests.build(self.workspace, given, self.edits)

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
        return [str(self.workspace.inside(v, "artifact")) for v in found] if axis == "artifact" else found

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

    def _restored(self) -> list[Any]:
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
            self.model,
            *self.artifacts,
        ]

    def _restore(self, path: str) -> Any:
        found = recipes.read(Path(path))
        names = [self.workspace.relative(each) for each in found.artifact if self.workspace.holds(each)]
        artifacts = [*names, *[None] * NUM_ARTIFACTS][:NUM_ARTIFACTS]
        plain = (
            found.negative,
            found.num_images,
            found.seed,
            found.steps,
            found.guidance,
            found.scheduler,
            found.width,
            found.height,
        )
        return [
            "\n".join(found.prompt),
            *plain,
            found.model,
            *artifacts,
            parts.note("The recipe is taken over; press Draw.", "good"),
        ]
