"""The Models page: embedded and cached models, artifacts with what they tell of themselves, exports, the trash."""

import json
import struct
from html import escape
from pathlib import Path
from typing import Any, get_args

import gradio as gr

from studio import assets, runs, serial
from studio.adapters import config as adapters
from studio.errors import StudioError
from studio.supervisor import least_busy
from ui import parts
from ui.page import QUICK, SETS, Page, shown_error

_HEADER_LIMIT = 10_000_000


def build(page: Page) -> None:
    """Draw the page."""
    ShelfPage(page)


class ShelfPage:
    """The components of the page, and what they do."""

    def __init__(self, page: Page) -> None:
        self.page, self.workspace = page, page.workspace
        self.watched = gr.State(0)
        with gr.Row(equal_height=False):
            with gr.Column(scale=7, min_width=300):
                self.models = gr.HTML(elem_id="models")
            with gr.Column(scale=5, min_width=300):
                self._artifact()
        for opened in (page.here["shelf"].select, page.blocks.load):
            opened(self._lists, None, [self.models, self.artifact], **QUICK)
        self.artifact.change(shown_error(self._describe), self.artifact, [self.about, self.formats], **QUICK)
        self.export.click(
            shown_error(self._export),
            [self.artifact, self.formats, self.trigger],
            [self.told, self.watched],
            **SETS,
        )
        self.discard.click(shown_error(self._discard), self.artifact, [self.told, self.artifact], **QUICK)
        page.follow(self.watched, self.told, self._told)

    def _artifact(self) -> None:
        gr.HTML('<h3 class="part">Artifact</h3>')
        self.artifact = gr.Dropdown([], label="Run or file", elem_id="artifact")
        self.about = gr.HTML()
        self.formats = gr.CheckboxGroup(
            list(_formats()),
            label="Export as",
            info="Written into the run's export folder, and read back to check.",
            elem_id="formats",
        )
        self.trigger = gr.Textbox(
            label="Trigger words", info="Written into the files, so that others know what to type."
        )
        with gr.Row():
            self.export = gr.Button("Export", variant="primary", elem_id="export")
            self.discard = gr.Button("Move to trash", elem_id="discard-artifact")
        self.told = gr.HTML(elem_id="export-told")

    def _lists(self) -> tuple[str, Any]:
        rows = [
            ("embedded", path.name, parts.size(path))
            for path in sorted((assets.root() / "models").iterdir())
            if path.is_dir()
        ]
        rows += [("cached", name, size) for name, size in _cached()]
        own = self.workspace.artifacts()
        table = parts.table(["where", "model", "size"], rows)
        shown = f'<h3 class="part">Base models</h3>{table}<h3 class="part">Trained here</h3>'
        shown += (
            self._trained(own)
            if own
            else parts.nothing(
                "Nothing trained yet",
                "A run's weights appear here when it is done; put LoRA files of others into models/.",
            )
        )
        return shown, gr.Dropdown(choices=own)

    def _trained(self, names: list[str]) -> str:
        rows = []
        for name in names:
            files = _files(self.workspace.root / name)
            told = metadata(files[0]) if files else {}
            rows.append(
                (
                    name,
                    ", ".join(file.name for file in files)[:90],
                    told.get("modelspec.trigger_phrase", ""),
                    parts.size(self.workspace.root / name),
                )
            )
        return parts.table(["artifact", "files", "trigger", "size"], rows)

    def _describe(self, name: str) -> Any:
        if not name:
            return "", gr.skip()
        path = self.workspace.inside(name, "artifact")
        files = _files(path)
        blocks = [
            f'<p>{parts.link(self.workspace, file, file.name)} <span class="lead" style="display:inline">{parts.size(file)}</span></p>'
            + parts.facts(_shown(metadata(file)))
            for file in files
        ]
        is_run = (path / "config.json").is_file()
        return f'<div class="job">{"".join(blocks) or escape(name)}</div>', gr.CheckboxGroup(
            interactive=is_run
        )

    def _export(self, name: str, formats: list[str], trigger: str) -> tuple[str, int]:
        folder, run = runs.open_run(self.workspace.inside(name or "", "artifact"))
        if "export" not in serial.hints(type(run.method)):
            raise StudioError(
                f"Run {name!r} is of a method without export formats; its files are in its export folder."
            )
        settings = serial.to_dict(serial.from_dict(adapters.Export, {"formats": formats, "trigger": trigger}))
        payload = {"run": str(folder.path), "export": settings}
        job = self.workspace.jobs.add(
            "export", payload, title=f"Export of {folder.path.name}", device=least_busy(self.workspace.jobs)
        )
        return self.page.told(job), job

    def _told(self, job: int) -> str:
        found = self.workspace.jobs.get(job)
        if found.state != "done":
            return self.page.told(job)
        files = [Path(file) for file in found.result["files"]]
        return parts.note("Written and read back.", "good") + "".join(
            parts.link(self.workspace, f, f.name) if f.is_file() else f"<span>{escape(f.name)}/ </span>"
            for f in files
        )

    def _discard(self, name: str) -> Any:
        if not name:
            raise StudioError("Choose an artifact first.", field="artifact")
        path = self.workspace.inside(name, "artifact")
        if self.workspace.jobs.running(path):
            raise StudioError(f"{name!r} is being trained; stop it first.", field="artifact")
        kept = self.workspace.discard(path)
        return parts.note(f"Moved to {self.workspace.relative(kept)}."), gr.Dropdown(
            choices=self.workspace.artifacts(), value=None
        )


def _formats() -> tuple[str, ...]:
    return get_args(adapters.Format)


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    return sorted(file for file in (path / "export").rglob("*.safetensors"))[:12]


def metadata(path: Path) -> dict[str, str]:
    """What a safetensors file tells about itself, from its header alone; nothing is unpickled."""
    with path.open("rb") as file:
        size = struct.unpack("<Q", file.read(8))[0]
        if size > min(_HEADER_LIMIT, path.stat().st_size):
            return {}
        header = json.loads(file.read(size))
    return {str(k): str(v) for k, v in header.get("__metadata__", {}).items()}


def _shown(values: dict[str, str]) -> list[tuple[str, str]]:
    names = {
        "modelspec.architecture": "Made for",
        "modelspec.trigger_phrase": "Trigger",
        "modelspec.title": "Title",
        "ss_network_dim": "Rank",
        "modelspec.license": "License",
        "modelspec.date": "Date",
    }
    return [(title, values[name][:80]) for name, title in names.items() if values.get(name)]


def _cached() -> list[tuple[str, str]]:
    """Models in the Hugging Face cache."""
    from huggingface_hub.constants import HF_HUB_CACHE

    folders = sorted(Path(HF_HUB_CACHE).glob("models--*"))
    return [(path.name.removeprefix("models--").replace("--", "/"), parts.size(path)) for path in folders]
