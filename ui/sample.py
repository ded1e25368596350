"""The Sample page: draw with a model, artifacts and edits, or with a run that still trains; compare along two axes."""

from pathlib import Path
from typing import Any

import gradio as gr

from studio.errors import StudioError
from studio.queue.jobs import Job
from studio.records import recipes
from studio.sampling.grid import AXES
from studio.settings import serial
from studio.settings.sampling import FLOW_SCHEDULERS, SCHEDULERS
from ui import drawn, forms, parts, requests
from ui.page import QUICK, SECONDS, SETS, Page, clickable
from ui.weights import Weights

_FILES = "a model and its artifacts"
_OWN = {"steps": "0: the model's own.", "guidance": "Empty: the model's own.", "width": "0: the model's own.",
        "height": "0: the model's own."}  # fmt: skip
"""What stands at the numbers that may be left to the model."""
_EMPTY = "Write a prompt and press Draw. Every picture carries the recipe that draws it again."


class SamplePage:
    """The components of the page, and what they do."""

    def __init__(self, page: Page) -> None:
        self.page, self.workspace = page, page.workspace
        self.job, self.ask = gr.State(0), gr.State(0)
        with gr.Row(equal_height=False):
            with gr.Column(scale=5, min_width=300):
                self._ask()
                self.weights = Weights(page)
                self.recipe = gr.File(
                    label="Drop a PNG to take over its recipe",
                    file_types=[".png"],
                    height=110,
                    **_named("recipe"),
                )
            with gr.Column(scale=7, min_width=300):
                self.result = clickable("result")
                with gr.Accordion("Compare along two axes", open=False, elem_id="compare"):
                    self._grid()
                self.earlier = gr.HTML(elem_id="earlier-pictures")
        self._listen()

    def _ask(self) -> None:
        self.source = gr.Dropdown([_FILES], value=_FILES, label="Draw with", elem_id="source")
        words: dict[str, Any] = {
            "lines": 2,
            "max_lines": 8,
            "placeholder": "a sticker of a unicorn on a blue background",
        }
        made = {
            "prompt": _box("prompt", info="One a line; each is drawn. Enter draws, Shift and Enter begin a line.", **words),
            "negative": _box("negative", label="Not to draw", info=None),
        }  # fmt: skip
        self.draw = gr.Button("Draw", variant="primary", elem_id="draw")
        self.told = gr.HTML(elem_id="draw-told")
        small: dict[str, Any] = {"min_width": 80}
        with gr.Row(elem_classes="fields small"):
            made["num_images"] = _box("num_images", label="Pictures", info=None, **small)
            made["seed"] = _box("seed", info=None, **small)
            made["steps"] = _box("steps", info=_OWN["steps"], **small)
            made["guidance"] = _box("guidance", info=_OWN["guidance"], placeholder="auto", **small)
        with gr.Accordion("Sampler and size", open=False), gr.Row():
            names, own = ["", *SCHEDULERS, *FLOW_SCHEDULERS], "Empty: the model's own."
            made["scheduler"] = gr.Dropdown(names, value="", label="Sampler", info=own, **small)
            for name in ("width", "height"):
                made[name] = _box(name, info=_OWN[name], **small)
        self.numbers = [made[name] for name in _OWN]
        self.plain = [made[name] for name in requests.PLAIN]

    def _grid(self) -> None:
        sides = (
            ("x", "From left to right", "strength", "0, 0.5, 1"),
            ("y", "From top to bottom", "seed", "0, 1"),
        )
        self.sides: list[Any] = []
        for side, label, usual, values in sides:
            axes, how = [*AXES] if side == "x" else ["", *AXES], "Separated by commas; prompts by lines."
            with gr.Row():
                self.sides += [
                    gr.Dropdown(axes, value=usual, label=label, **_named(f"axis-{side}")),
                    gr.Textbox(values, label="Values", info=how, **_named(f"values-{side}")),
                ]
        self.compare = gr.Button("Draw the grid", elem_id="draw-grid")
        self.grid_told = gr.HTML(elem_id="grid-told")

    def _listen(self) -> None:
        page, inputs, seen = self.page, [*self.plain, *self.weights.inputs], [self.job, self.ask]
        page.act(self.draw.click, self._draw, [self.source, *inputs], [self.told, *seen], **SETS)
        page.act(self.compare.click, self._compare, [*self.sides, *inputs], [self.grid_told, *seen], **SETS)
        restored = [self.told, *self.plain, *self.weights.restored]
        page.act(self.recipe.upload, self._restore, self.recipe, restored, queue=False)
        timer = gr.Timer(SECONDS / 2, active=False)
        for look in (self.job.change, self.ask.change, timer.tick):
            look(self._look, seen, [self.result, timer], **QUICK)
        self.job.change(lambda: drawn.earlier(self.workspace), None, self.earlier, **QUICK)
        page.manages(self.result)
        model = self.weights.model
        gr.on([model.blur, model.submit], self._own, model, self.numbers, **QUICK)
        lists = [self.source, *self.weights.artifacts, self.result, self.earlier]
        page.when_opened("sample", self._lists, lists, self.job)

    def _lists(self, job: int) -> list[Any]:
        running = [(f"running: {each.title} (live weights)", f"job {each.id}") for each in self.workspace.jobs.running() if each.run]  # fmt: skip
        empty = gr.skip() if job else parts.nothing("Nothing drawn yet", _EMPTY)
        earlier = gr.skip() if job else drawn.earlier(self.workspace)
        return [gr.Dropdown(choices=[_FILES, *running]), *self.weights.choices(), empty, earlier]

    def _own(self, model: str) -> list[Any]:
        """What the numbers that nobody gave are for a model."""
        found = requests.own_numbers(self.workspace, model.strip())
        return [
            gr.update(info=text.replace("own.", f"own, {found[name]}.") if name in found else text)
            for name, text in _OWN.items()
        ]

    def _draw(self, source: str, *given: Any) -> Any:
        request = requests.drawing(self.workspace, given, self.weights.edits)
        if source.startswith("job "):
            ask = self.workspace.jobs.ask(int(source[4:]), {"request": request | {"model": ""}})
            return "", 0, ask
        job = self.workspace.submit("sample", {"request": request}, request["prompt"][0][:60])
        return "", job, 0

    def _compare(self, x: str, xs: str, y: str, ys: str, *given: Any) -> Any:
        request = requests.build(self.workspace, given, self.weights.edits)
        payload = requests.compare(self.workspace, request, [(x, xs), (y, ys)])
        return "", self.workspace.submit("grid", payload, f"Grid of {x} and {y or 'nothing'}"), 0

    def _look(self, job: int, ask: int) -> tuple[Any, gr.Timer]:
        """What the open request has come to; the timer rests once it is done."""
        if ask:
            return self._answer(ask)
        if not job:
            return gr.skip(), gr.Timer(active=False)
        found = self.workspace.jobs.get(job)
        shown = self._shown(found) if found.state == "done" else self.page.told(job)
        return shown, gr.Timer(active=found.is_open)

    def _shown(self, job: Job) -> str:
        if job.kind == "grid":
            return drawn.sheet(self.workspace, job.result)
        return drawn.gallery(self.workspace, job.result["pictures"])

    def _answer(self, ask: int) -> tuple[Any, gr.Timer]:
        found = self.workspace.jobs.get_ask(ask)
        if found.state == "queued":
            return parts.note("The run answers after its present step."), gr.Timer(active=True)
        if found.state == "failed":
            return parts.note(found.error, "error"), gr.Timer(active=False)
        step, seconds = found.result["step"], found.result["seconds"]
        told = parts.note(
            f"From the live weights at step {step}, in {seconds:.1f} s between two steps.", "good"
        )
        return told + drawn.gallery(self.workspace, found.result["pictures"]), gr.Timer(active=False)

    def _restore(self, path: str) -> list[Any]:
        try:
            found = recipes.read(Path(path))
        except StudioError as error:  # the place of the upload tells nobody anything
            raise StudioError(str(error).replace(path, Path(path).name), field="recipe") from None
        plain = serial.to_dict(found) | {"prompt": "\n".join(found.prompt)}
        values, lost = self.weights.restore(found)
        without = f" without {', '.join(lost)}, not found here" if lost else ""
        told = parts.note(f"The recipe is taken over{without}; press Draw.", "error" if lost else "good")
        return [told, *(plain[name] for name in requests.PLAIN), *values]


def _box(name: str, **options: Any) -> Any:
    return forms.draw(requests.FIELDS[name], elem_id=name, **options)


def _named(name: str) -> dict[str, Any]:
    return {"elem_id": name, "elem_classes": f"field-{name}", "min_width": 160}
