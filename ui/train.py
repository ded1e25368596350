"""The Train page: choose a method and data, see what would run, measure it, start it."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import gradio as gr
import yaml

from studio.catalog import methods
from studio.catalog.run import Run
from studio.errors import StudioError
from studio.queue.jobs import Job
from studio.settings import serial
from studio.settings.memory import CARDS
from ui import boxes, drafts, forms, parts
from ui.forms import Leaf
from ui.page import QUICK, SETS, Page, clickable

_CARDS = [("on this machine", 0), *((f"for {size} GB", size) for size in CARDS)]
_LEVELS = [("Simple", "simple"), ("All", "all")]
_DATA = ("method.data", "method.data.train")
_START = "Choose pictures of your subject, then start."
Shape = dict[str, Any]
"""What the form is drawn from: the method, its preset, the view and the values."""


def start_shape(
    method: str = "dreambooth", preset: str = "auto", values: Mapping[str, Any] | None = None
) -> Shape:
    """The form of a method under a preset, with some values changed."""
    base = drafts.base(method, preset)
    return {"method": method, "preset": preset, "level": "simple", "values": serial.merge(base, values or {})}


class TrainPage:
    """The components of the page, and what they do."""

    def __init__(self, page: Page) -> None:
        self.page, self.workspace = page, page.workspace
        self.shape, self.planning = gr.State(start_shape()), gr.State(0)
        with gr.Row(equal_height=False):
            with gr.Column(scale=7, min_width=300):
                self._top()
                self._data()
                drawn = [self.shape.change, page.blocks.load]
                gr.render([self.shape, self.folder], drawn, show_progress="hidden")(self._form)
            with gr.Column(scale=5, min_width=300, elem_classes="beside"):
                self._side()
        page.form = [self.shape, self.method, self.preset, self.about, self.level, self.folder, self.data]
        page.follow(self.planning, [self.planned], _planned)
        self._listen()

    def _top(self) -> None:
        with gr.Row():
            offered, presets = drafts.offered(), _presets("dreambooth")
            self.method = gr.Dropdown(
                offered, value="dreambooth", label="Method", elem_id="method", min_width=180
            )
            self.preset = gr.Dropdown(presets, value="auto", label="Preset", elem_id="preset", min_width=180)
            # Gradio sees no event that reads it (those come with the form), and would lock it.
            self.level = gr.Radio(
                _LEVELS, value="simple", label="View", elem_id="level", interactive=True, min_width=180
            )
        self.about = gr.HTML(_about("dreambooth"))

    def _data(self) -> None:
        """The choice of pictures: an upload, or a folder inside the workspace."""
        with gr.Row(equal_height=True) as self.data:
            self.folder = gr.Dropdown(
                self.workspace.picture_folders(),
                value=None,
                allow_custom_value=True,
                label="Pictures",
                info=_data_of("dreambooth")[1],
                elem_id="folder",
                elem_classes=[f"field-{name.replace('.', '-')}" for name in _DATA],
                scale=3,
            )
            self.verdict = gr.HTML(parts.note(_START), elem_id="verdict", render=False)
            self.page.upload(self.folder, self.verdict, elem_id="upload", scale=2)
        folders = self.workspace.picture_folders
        self.page.when_opened("train", lambda: gr.Dropdown(choices=folders()), self.folder)

    def _side(self) -> None:
        self.verdict.render()
        with gr.Row():
            self.go = gr.Button("Start training", variant="primary", elem_id="start", min_width=140)
            self.measure = gr.Button("Measure first", elem_id="plan", min_width=140)
            self.gpu = gr.Dropdown(
                _CARDS, value=0, show_label=False, container=False, elem_id="gpu", min_width=140
            )
        self.planned = clickable("planned")
        code: dict[str, Any] = {"buttons": ["copy"], "interactive": False, "elem_classes": "code"}
        same = "The command that does the same"
        self.command = gr.Textbox(label=same, lines=3, max_lines=6, elem_id="command", **code)
        self.text = gr.Textbox(label="Its settings file", lines=14, max_lines=14, elem_id="yaml", **code)
        with gr.Row():
            self.saved = gr.Button("Save settings", elem_id="save", min_width=140)
            kinds = [".yaml", ".yml", ".json"]
            self.loaded = gr.UploadButton("Load settings", file_types=kinds, elem_id="load", min_width=140)

    def _listen(self) -> None:
        def choose(name: str, chosen: str | None) -> list[Any]:
            preset = gr.Dropdown(_presets(name), value="auto")
            return [
                start_shape(name),
                preset,
                _about(name),
                "simple",
                *_data_row(name, _data_of(name)[0] or chosen),
            ]

        def change(now: Shape, name: str) -> Shape:
            return start_shape(now["method"], name) | {"level": now["level"]}

        def load(path: str) -> list[Any]:
            return [
                parts.note("Loaded.", "good"),
                *filled(Run.from_dict(serial.read_file(Path(path))).to_dict()),
            ]

        def fresh(now: Shape, chosen: str | None) -> list[Any]:
            return self._look(chosen, lambda: _values([now, chosen], []))

        self.method.input(choose, [self.method, self.folder], [self.shape, *self.page.form[2:]], **SETS)
        self.preset.input(change, [self.shape, self.preset], self.shape, **SETS)
        self.page.act(self.loaded.upload, load, self.loaded, [self.verdict, *self.page.form], **SETS)
        self.shown = [self.verdict, self.command, self.text]
        self.shape.change(fresh, [self.shape, self.folder], self.shown, **QUICK)

    def _form(self, now: Shape, chosen: str | None) -> None:
        """Draw the fields; runs again whenever the form's shape changes."""
        del chosen
        fields = _shown(now)
        drawn = boxes.draw(fields, now["level"])
        sizes = [(leaf, box) for leaf, box in zip(fields, drawn, strict=True) if isinstance(box, gr.Number)]
        inputs = [self.shape, self.folder, *drawn]

        def values(*given: Any) -> dict[str, Any]:
            return _values(given, fields)

        def look(*given: Any) -> list[Any]:
            return self._look(given[1], lambda: values(*given), [leaf for leaf, _ in sizes])

        told = [*self.shown, *(box for _, box in sizes)]
        triggers = [*boxes.triggers(drawn, fields), self.folder.change]
        gr.on(triggers, look, inputs, told, trigger_mode="always_last", **QUICK)
        boxed = list(zip(fields, drawn, strict=True))
        models = [box for leaf, box in boxed if leaf.name == "method.model"]
        self._redraw([box for leaf, box in boxed if leaf.is_choice], models, values, inputs)
        buttons = (
            (self.go, self._start, [self.verdict, self.page.tabs, self.page.picked]),
            (self.saved, self._save, [self.verdict]),
        )
        for button, function, shown in buttons:
            act = _after(values, function)
            self.page.act(button.click, act, inputs, shown, **SETS)
        plan, told = (lambda gpu, *given: self._plan(values(*given), gpu)), [self.planned, self.planning]
        self.page.act(self.measure.click, plan, [self.gpu, *inputs], told, **SETS)

    def _redraw(
        self, choices: Sequence[Any], models: Sequence[Any], values: Callable[..., Any], inputs: list[Any]
    ) -> None:
        """Another alternative, model or view needs other fields, and may suit another preset; what was typed stays."""

        def redraw(*given: Any) -> tuple[Any, Shape]:
            return gr.skip(), given[0] | {"values": _fitting(given[0], values(*given))}

        def remodel(*given: Any) -> tuple[Any, Any]:
            now, held = given[0], values(*given)
            fitting = _fitting(now, held)
            same = fitting["preset"] == held["preset"]
            return gr.skip(), gr.skip() if same else now | {"values": fitting}

        def relevel(wanted: str, *given: Any) -> tuple[Any, Shape]:
            return gr.skip(), given[0] | {"values": values(*given), "level": wanted}

        seen = [self.verdict, self.shape]
        for box in choices:
            self.page.act(box.input, redraw, inputs, seen, **SETS)
        for box in models:
            self.page.act(box.blur, remodel, inputs, seen, **SETS)
        self.page.act(self.level.input, relevel, [self.level, *inputs], seen, **SETS)

    def _look(
        self, chosen: str | None, values: Callable[[], dict[str, Any]], sizes: Sequence[Leaf] = ()
    ) -> list[Any]:
        """What the form would run, with which numbers in place of those that follow, or what is wrong with it."""
        try:
            held = values()
            run = drafts.build(held, self.workspace)
            lines = drafts.told(run)
        except StudioError as error:
            untouched = not chosen and error.field in _DATA
            said = parts.note(_START) if untouched else parts.refusal(error)
            return [said, "", "", *(gr.update(info=leaf.info or None) for leaf in sizes)]
        follows = drafts.followed(held, run)
        return [
            parts.note("Ready to start.", "good") + "".join(parts.note(*line) for line in lines),
            drafts.command(run),
            drafts.as_yaml(run),
            *(gr.update(info=leaf.beside(follows.get(leaf.name)) or None) for leaf in sizes),
        ]

    def _start(self, values: Mapping[str, Any]) -> Any:
        run = drafts.build(values, self.workspace)
        name = run.name or self.workspace.new_run_name(values["method"]["kind"])
        self.workspace.submit("train", run.to_dict() | {"name": name}, name, run=self.workspace.runs / name)
        return parts.note(f"Started {name}.", "good"), gr.Tabs(selected="runs"), name

    def _plan(self, values: Mapping[str, Any], gpu: float) -> tuple[str, int]:
        run = drafts.build(values, self.workspace)
        title = f"Counting memory for {gpu:g} GB" if gpu else "Measuring a few real steps"
        return "", self.workspace.submit("plan", {"run": run.to_dict(), "gpu": gpu}, title)

    def _save(self, values: Mapping[str, Any]) -> str:
        run = drafts.build(values, self.workspace)
        folder = self.workspace.root / ".studio" / "settings"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{values['method']['kind']}.yaml"
        path.write_text(drafts.as_yaml(run), encoding="utf-8")
        return parts.note("Saved.", "good") + parts.link(self.workspace, path, path.name)


def filled(values: Mapping[str, Any]) -> list[Any]:
    """What `page.form` shows for the settings of a run."""
    method = values["method"]["kind"]
    data = values["method"].get("data", "")
    folder = data.get("train", "") if isinstance(data, dict) else data
    shape = start_shape(method, "none", yaml.safe_load(yaml.safe_dump(dict(values))))
    preset = gr.Dropdown(_presets(method), value="none")
    return [shape, method, preset, _about(method), "simple", *_data_row(method, folder)]


def _after(values: Callable[..., Any], function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *given: function(values(*given))


def _data_of(method: str) -> tuple[Any, str]:
    """A method's own data, and what it may be; None where it takes none that way."""
    fields = drafts.fields(method, drafts.base(method, "auto"))
    leaf = next((leaf for leaf in fields if leaf.name in _DATA), None)
    return (leaf.value or "", leaf.help) if leaf else (None, "")


def _data_row(method: str, folder: str | None) -> list[Any]:
    """The choice of pictures as a method wants it."""
    own, text = _data_of(method)
    return [gr.Dropdown(value=folder or None, info=text), gr.Row(visible=own is not None)]


def _about(name: str) -> str:
    card = methods.card(name)
    return f'<p class="lead">{card.summary[:1].upper() + card.summary[1:]}. <i>{card.paper}</i></p>'


def _presets(name: str) -> list[tuple[str, str]]:
    card = methods.card(name)
    own = [(f"{preset}: {found.note}"[:80], preset) for preset, found in card.presets.items()]
    return [("What suits the model", "auto"), ("The method's defaults", "none"), *own]


def _fitting(now: Shape, values: dict[str, Any]) -> dict[str, Any]:
    """Values under the preset that suits them, where the form is to choose it."""
    return drafts.suited(now["method"], values) if now["preset"] == "auto" else values


def _shown(now: Shape) -> list[Leaf]:
    fields = [leaf for leaf in drafts.fields(now["method"], now["values"]) if leaf.name not in _DATA]
    return fields if now["level"] == "all" else drafts.simple(fields)


def _values(given: Sequence[Any], fields: Sequence[Leaf]) -> dict[str, Any]:
    """All values of the run: the drawn ones over those that the form does not show."""
    now, chosen, *held = given
    values = serial.merge(now["values"], forms.collect(fields, held))
    values["method"]["kind"] = now["method"]
    data = values["method"].get("data")
    if isinstance(data, dict) and "train" in data and chosen:
        values["method"]["data"] = data | {"train": chosen}
    elif isinstance(data, str):
        values["method"]["data"] = chosen or ""
    return values


def _planned(job: Job) -> list[str]:
    kind = "good" if job.result["fits"] else "error"
    rows = [(name, value) for name, value in job.result["lines"] if name != "verdict"]
    where = f"A GPU of {job.result['gpu']:g} GB" if job.result["gpu"] else "This machine"
    return [parts.note(f"{where}: {job.result['advice']}.", kind) + parts.table([], rows)]
