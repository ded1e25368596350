"""The Models page: embedded and cached models, artifacts with what they tell of themselves, exports, the trash."""

import json
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any, get_args

import gradio as gr

from studio import assets
from studio.adapters import config as adapters
from studio.catalog.run import Run
from studio.errors import StudioError
from studio.queue.jobs import Job
from studio.records import runs, trained
from studio.settings import serial
from ui import parts
from ui.page import QUICK, SETS, Page, clickable

_HEADER_LIMIT = 10_000_000
_EMPTY = "A run appears here with its first checkpoint; put LoRA files of others into models/."
_UNEXPORTED = "not exported; Export writes its newest checkpoint"
_READ_BACK = (
    "Written into the run's export folder, and read back to check. None ticked: what fits the weights."
)
_NAMES = {
    "modelspec.architecture": "Made for",
    "modelspec.trigger_phrase": "Trigger",
    "ss_network_dim": "Rank",
    "modelspec.license": "License",
    "modelspec.date": "Date",
}


class ShelfPage:
    """The components of the page, and what they do."""

    def __init__(self, page: Page) -> None:
        self.page, self.workspace = page, page.workspace
        self.watched = gr.State(0)
        with gr.Row(equal_height=False):
            with gr.Column(scale=7, min_width=300):
                self.models = gr.HTML(elem_id="models")
            with gr.Column(scale=5, min_width=300, elem_classes="beside"):
                self._artifact()
        page.when_opened("shelf", self._lists, [self.models, self.artifact])
        described, exported = [self.about, self.formats], [self.artifact, self.formats, self.trigger]
        page.act(self.artifact.change, self._describe, self.artifact, described, **QUICK)
        page.act(self.export.click, self._export, exported, [self.told, self.watched], **SETS)
        removed = [self.told, self.artifact, self.models]
        page.act(self.discard.click, self._discard, self.artifact, removed, **QUICK)
        page.follow(self.watched, [self.told, self.about, self.models], self._done)

    def _artifact(self) -> None:
        gr.HTML('<h3 class="part">Artifact</h3>')
        self.artifact = gr.Dropdown(
            [], label="Run or file", elem_id="artifact", elem_classes="field-artifact"
        )
        self.about = gr.HTML()
        formats = list(get_args(adapters.Format))
        self.formats = gr.CheckboxGroup(formats, label="Export as", info=_READ_BACK, elem_id="formats")
        told = "Written into the files, so that others know what to type."
        self.trigger = gr.Textbox(label="Trigger words", info=told, elem_id="trigger")
        with gr.Row():
            self.export = gr.Button("Export", variant="primary", elem_id="export")
            self.discard = gr.Button("Move to trash", elem_id="discard-artifact")
        self.told = clickable("export-told")

    def _lists(self) -> tuple[str, Any]:
        shelf = [path for path in sorted((assets.root() / "models").iterdir()) if path.is_dir()]
        rows = [("embedded", path.name, parts.size(path)) for path in shelf]
        rows += [("cached", name, size) for name, size in _cached()]
        own = [name for name in self.workspace.artifacts() if name not in trained.shipped()]
        shown = parts.section(
            "Base models and embedded artifacts", parts.table(["where", "model", "size"], rows)
        )
        own += self.workspace.unexported()
        mine = self._trained(own) if own else parts.nothing("Nothing trained yet", _EMPTY)
        return shown + parts.section("Trained here", mine), gr.Dropdown(choices=own)

    def _trained(self, names: list[str]) -> str:
        rows = []
        for name in names:
            path = self.workspace.root / name
            files = _files(path)
            trigger = metadata(files[0]).get("modelspec.trigger_phrase", "") if files else ""
            named = _UNEXPORTED if _lacks_export(path) else ", ".join(file.name for file in files)[:90]
            rows.append((name, named, trigger, parts.size(path)))
        return parts.table(["artifact", "files", "trigger", "size"], rows)

    def _chosen(self, name: str | None) -> Path:
        if not name:
            raise StudioError("Choose an artifact first.", field="artifact")
        return self.workspace.inside(name, "artifact")

    def _describe(self, name: str | None) -> tuple[str, Any]:
        if not name:
            return "", gr.CheckboxGroup(interactive=True)
        path = self._chosen(name)
        chooses = (path / "config.json").is_file() and _has_formats(runs.open_run(path)[1])
        return self._about(path), gr.CheckboxGroup(interactive=chooses)

    def _about(self, path: Path) -> str:
        """The files of an artifact, each with what it tells of itself, once for those that tell the same."""
        told: dict[str, list[Path]] = {}
        for file in _files(path):
            told.setdefault(parts.facts(_shown(metadata(file))), []).append(file)
        blocks = "".join(facts + "".join(map(self._file, files)) for facts, files in told.items())
        bare = f"{path.name}: {_UNEXPORTED}" if _lacks_export(path) else path.name
        return f'<div class="job">{blocks or escape(bare)}</div>'

    def _file(self, path: Path) -> str:
        link = parts.link(self.workspace, path, path.name)
        return f'<p class="file">{link}<span class="lead">{parts.size(path)}</span></p>'

    def _export(self, name: str | None, formats: list[str], trigger: str) -> tuple[str, int]:
        path = self._chosen(name)
        if not (path / "config.json").is_file():
            raise StudioError(f"{name!r} is a file; only runs can be exported again.", field="artifact")
        folder, run = runs.open_run(path)
        settings: dict[str, Any] = {}
        if _has_formats(run):
            asked = {"formats": formats, "trigger": trigger}
            settings = serial.to_dict(serial.from_dict(adapters.Export, asked))
        elif formats or trigger:
            raise StudioError(
                f"Run {name!r} is of a method that writes one format, its own; choose none, and no word.",
                field="artifact",
            )
        payload = {"run": str(folder.path), "export": settings}
        return "", self.workspace.submit("export", payload, f"Export of {folder.path.name}")

    def _done(self, job: Job) -> list[str]:
        files = [Path(file) for file in job.result["files"]]
        links = [
            parts.link(self.workspace, f, f.name) if f.is_file() else f"<span>{escape(f.name)}/ </span>"
            for f in files
        ]
        return [
            parts.note("Written and read back.", "good") + "".join(links),
            self._about(Path(job.payload["run"])),
            self._lists()[0],
        ]

    def _discard(self, name: str | None) -> Any:
        path = self._chosen(name)
        if self.workspace.jobs.running(path):
            raise StudioError(f"{name!r} is being trained; stop it first.", field="artifact")
        told = parts.note(f"Moved to {self.workspace.relative(self.workspace.discard(path))}.")
        models, choices = self._lists()
        return told, gr.Dropdown(choices=choices.choices, value=None), models


def _has_formats(run: Run) -> bool:
    """Whether a run's method writes more than one format of its own."""
    return "export" in serial.hints(type(run.method))


def _lacks_export(path: Path) -> bool:
    """Whether it is a run that wrote no export yet."""
    return (path / "config.json").is_file() and not any((path / "export").glob("*"))


def _files(path: Path) -> list[Path]:
    """The weights of a file, a run or a folder."""
    if path.is_file():
        return [path]
    inside = path / "export" if (path / "config.json").is_file() else path
    return sorted(inside.rglob("*.safetensors"))[:12]


def metadata(path: Path) -> dict[str, str]:
    """What a safetensors file tells about itself, from its header alone; nothing is unpickled."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        if size > min(_HEADER_LIMIT, path.stat().st_size):
            return {}
        try:
            header = json.loads(file.read(size))
        except ValueError:  # not what its name says
            return {}
    return {str(k): str(v) for k, v in header.get("__metadata__", {}).items()}


def _shown(values: Mapping[str, str]) -> list[tuple[str, str]]:
    found = [(title, values.get(name, "")[:80]) for name, title in _NAMES.items()]
    return [(title, value.partition("T")[0] if title == "Date" else value) for title, value in found if value]


def _cached() -> list[tuple[str, str]]:
    """Models in the Hugging Face cache."""
    from huggingface_hub.constants import HF_HUB_CACHE

    folders = sorted(Path(HF_HUB_CACHE).glob("models--*"))
    return [(path.name.removeprefix("models--").replace("--", "/"), parts.size(path)) for path in folders]
