"""The Train page: choose a method and data, see what would run, measure it, start it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gradio as gr
import yaml

from studio import catalog, runs, serial
from studio.errors import StudioError
from studio.supervisor import least_busy
from ui import boxes, drafts, forms, parts
from ui.forms import Leaf
from ui.page import QUICK, SETS, Page, shown_error
from ui.uploads import store

_LEVELS = [("Simple", "simple"), ("All", "all")]
_DATA = ("method.data", "method.data.train")
Shape = dict[str, Any]


def start_shape(
    method: str = "dreambooth", preset: str = "auto", values: Mapping[str, Any] | None = None
) -> Shape:
    """What the form is drawn from: the method, its preset, the view and the values."""
    base = drafts.base(method, preset)
    return {"method": method, "preset": preset, "level": "simple", "values": serial.merge(base, values or {})}


def build(page: Page) -> None:
    """Draw the page."""
    TrainPage(page)


class TrainPage:
    """The components of the page, and what they do."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.shape = page.shape = gr.State(start_shape())
        self.watched = gr.State(0)
        with gr.Row(equal_height=False):
            with gr.Column(scale=7, min_width=300):
                self._top()
                self.folder = _data(page)
                gr.render(
                    [self.shape, self.folder], [self.shape.change, page.blocks.load], show_progress="hidden"
                )(self._form)
            with gr.Column(scale=5, min_width=300):
                self._side()
        page.follow(self.watched, self.planned, _told_plan(page))
        self._listen()

    def _top(self) -> None:
        with gr.Row():
            self.method = gr.Dropdown(
                drafts.methods(), value="dreambooth", label="Method", elem_id="method", min_width=200
            )
            self.preset = gr.Dropdown(
                _presets("dreambooth"), value="auto", label="Preset", elem_id="preset", min_width=200
            )
            self.level = gr.Radio(_LEVELS, value="simple", label="View", elem_id="level", min_width=200)
        self.about = gr.HTML(_about("dreambooth"))

    def _side(self) -> None:
        self.verdict = gr.HTML(parts.note("Choose pictures of your subject, then start."), elem_id="verdict")
        with gr.Row():
            self.go = gr.Button("Start training", variant="primary", elem_id="start", min_width=140)
            self.measure = gr.Button("Measure first", elem_id="plan", min_width=140)
        self.planned = gr.HTML(elem_id="planned")
        code: dict[str, Any] = {"buttons": ["copy"], "interactive": False, "elem_classes": "code"}
        self.command = gr.Textbox(
            label="The command that does the same", lines=2, max_lines=8, elem_id="command", **code
        )
        self.text = gr.Textbox(label="Its settings file", lines=10, max_lines=24, elem_id="yaml", **code)
        with gr.Row():
            self.saved = gr.Button("Save settings", elem_id="save", min_width=140)
            self.loaded = gr.UploadButton(
                "Load settings", file_types=[".yaml", ".yml", ".json"], elem_id="load", min_width=140
            )

    def _listen(self) -> None:
        def choose(name: str) -> Any:
            return start_shape(name), gr.Dropdown(_presets(name), value="auto"), _about(name), "simple"

        def change(now: Shape, name: str) -> Shape:
            return start_shape(now["method"], name) | {"level": now["level"]}

        def load(path: str) -> tuple[Shape, str, str]:
            return shape_of(runs.dump(runs.build(serial.read_file(Path(path)))))

        self.method.input(choose, self.method, [self.shape, self.preset, self.about, self.level], **SETS)
        self.preset.input(change, [self.shape, self.preset], self.shape, **SETS)
        self.loaded.upload(shown_error(load), self.loaded, [self.shape, self.method, self.folder], **SETS)

    def _form(self, now: Shape, chosen: str) -> None:
        """Draw the fields; runs again whenever the form's shape changes."""
        del chosen
        fields = _shown(now)
        drawn = boxes.draw(fields, now["level"])
        bad, inputs = gr.State(""), [self.shape, self.folder, *drawn]

        def look(before: str, *given: Any) -> list[Any]:
            return self._look(before, fields, given)

        def values(*given: Any) -> dict[str, Any]:
            return _values(given, fields)

        seen = [self.verdict, self.command, self.text, bad, *drawn]
        triggers = [*boxes.triggers(drawn, fields), self.folder.change]
        gr.on(triggers, look, [bad, *inputs], seen, trigger_mode="always_last", **QUICK)
        choices = [box for leaf, box in zip(fields, drawn, strict=True) if leaf.is_choice]
        self._redraw(choices, values, inputs)
        checked = self.go.click(look, [bad, *inputs], seen, **QUICK)
        started = [self.verdict, self.page.tabs, self.page.picked]
        checked.then(self._told_error(_start, values, 2), inputs, started, **SETS)
        planned = [self.planned, self.watched]
        self.measure.click(self._told_error(_plan, values, 1), inputs, planned, **SETS)
        self.saved.click(self._told_error(_save, values, 0), inputs, self.verdict, **QUICK)

    def _redraw(self, choices: Sequence[Any], values: Any, inputs: list[Any]) -> None:
        """Another alternative, or the other view, needs other fields; what was typed stays."""

        def redraw(*given: Any) -> Shape:
            return given[0] | {"values": values(*given)}

        def relevel(wanted: str, *given: Any) -> Shape:
            return redraw(*given) | {"level": wanted}

        for box in choices:
            box.input(shown_error(redraw), inputs, self.shape, **SETS)
        self.level.input(shown_error(relevel), [self.level, *inputs], self.shape, **SETS)

    def _told_error(self, function: Any, values: Any, others: int) -> Any:
        """What a button does; a person's mistake is told where its result would be."""

        def act(*given: Any) -> Any:
            try:
                return function(self.page, values(*given))
            except StudioError as error:
                told = parts.note(str(error), "error")
                return [told, *[gr.skip()] * others] if others else told

        return act

    def _look(self, before: str, fields: Sequence[Leaf], given: Sequence[Any]) -> list[Any]:
        """What the form would run, or what is wrong with it, said at the field."""
        try:
            run = drafts.build(_values(given, fields), self.page.workspace)
        except StudioError as error:
            name = boxes.at_fault(error, fields)
            marks = [boxes.mark(leaf, str(error), name, before) for leaf in fields]
            return [parts.note(str(error), "error"), gr.skip(), gr.skip(), name, *marks]
        marks = [boxes.mark(leaf, "", "", before) for leaf in fields]
        return [parts.note("Ready to start.", "good"), drafts.command(run), drafts.as_yaml(run), "", *marks]


def _data(page: Page) -> gr.Dropdown:
    """The choice of pictures: an upload, or a folder inside the workspace."""
    with gr.Row(equal_height=True):
        folder = gr.Dropdown(
            page.workspace.picture_folders(), value=None, allow_custom_value=True, label="Pictures",
            info="A folder of three or more pictures of one subject; captions beside them are used.", elem_id="folder", scale=3,
        )  # fmt: skip
        upload = gr.File(
            file_count="multiple",
            file_types=["image", ".txt", ".caption", ".zip"],
            label="or upload pictures",
            height=128,
            show_label=False,
            elem_id="upload",
            scale=2,
        )
    told = gr.HTML()

    def take(files: Sequence[str]) -> Any:
        try:
            made = store(files, page.workspace, page.settings)
        except StudioError as error:
            return gr.skip(), None, parts.note(str(error), "error")
        name = page.workspace.relative(made)
        return (
            gr.Dropdown(page.workspace.picture_folders(), value=name),
            None,
            parts.note(f"Uploaded to {name}.", "good"),
        )

    upload.upload(take, upload, [folder, upload, told])
    page.on_load(lambda: gr.Dropdown(choices=page.workspace.picture_folders()), [folder])
    return folder


def _about(name: str) -> str:
    card = catalog.card(name)
    return f'<p class="lead">{card.summary[:1].upper() + card.summary[1:]}. <i>{card.paper}</i></p>'


def _presets(name: str) -> list[tuple[str, str]]:
    card = catalog.card(name)
    own = [(f"{preset}: {found.note}"[:80], preset) for preset, found in card.presets.items()]
    return [("What suits the model", "auto"), ("The method's defaults", "none"), *own]


def _shown(now: Shape) -> list[Leaf]:
    fields = [leaf for leaf in drafts.fields(now["method"], now["values"]) if leaf.name not in _DATA]
    return fields if now["level"] == "all" else drafts.simple(fields)


def _values(given: Sequence[Any], fields: Sequence[Leaf]) -> dict[str, Any]:
    """All values of the run: the drawn ones over those that the form does not show."""
    now, chosen, *boxes = given
    values = serial.merge(now["values"], forms.collect(fields, boxes))
    values["method"]["kind"] = now["method"]
    data = values["method"].get("data")
    if chosen and data is not None:
        values["method"]["data"] = data | {"train": chosen} if isinstance(data, dict) else chosen
    return values


def _start(page: Page, values: Mapping[str, Any]) -> Any:
    run = drafts.build(values, page.workspace)
    folder = run.name or page.workspace.new_run_name(values["method"]["kind"])
    named = runs.dump(run) | {"name": folder}
    device = least_busy(page.workspace.jobs)
    page.workspace.jobs.add(
        "train", named, title=folder, device=device, run=str(page.workspace.runs / folder)
    )
    return parts.note(f"Started {folder}.", "good"), gr.Tabs(selected="runs"), folder


def _plan(page: Page, values: Mapping[str, Any]) -> tuple[str, int]:
    run = drafts.build(values, page.workspace)
    device = least_busy(page.workspace.jobs)
    job = page.workspace.jobs.add("plan", runs.dump(run), title="Measuring a few real steps", device=device)
    return page.told(job), job


def _told_plan(page: Page) -> Any:
    def told(job: int) -> str:
        found = page.workspace.jobs.get(job)
        if found.state != "done":
            return page.told(job)
        kind = "good" if found.result["fits"] else "error"
        rows = [(name, value) for name, value in found.result["lines"] if name != "verdict"]
        return parts.note(f"This machine: {found.result['advice']}.", kind) + parts.table([], rows)

    return told


def _save(page: Page, values: Mapping[str, Any]) -> str:
    run = drafts.build(values, page.workspace)
    folder = page.workspace.root / ".studio" / "settings"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{values['method']['kind']}.yaml"
    path.write_text(drafts.as_yaml(run), encoding="utf-8")
    return parts.note("Saved.", "good") + parts.link(page.workspace, path, path.name)


def shape_of(values: Mapping[str, Any]) -> tuple[Shape, str, str]:
    """The form for given settings: its shape, method and data folder."""
    method = values["method"]["kind"]
    data = values["method"].get("data", "")
    folder = data.get("train", "") if isinstance(data, dict) else data
    shape = start_shape(method, "none", yaml.safe_load(yaml.safe_dump(dict(values)))) | {"preset": "none"}
    return shape, method, folder
