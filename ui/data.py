"""The Data page: pictures with their captions, edited in place, replaced in bulk, and checked before training."""

from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from studio import serial
from studio.chat.config import Captioning
from studio.data import layouts
from studio.data.layouts import Record
from studio.errors import StudioError
from studio.supervisor import least_busy
from ui import captions, parts
from ui.page import QUICK, SETS, Page, shown_error
from ui.theme import PICK
from ui.uploads import store

_SHOWN = 200


def build(page: Page) -> None:
    """Draw the page."""
    DataPage(page)


class DataPage:
    """The components of the page, and what they do."""

    def __init__(self, page: Page) -> None:
        self.page, self.workspace = page, page.workspace
        self.watched, self.chosen = gr.State(0), gr.State("")
        with gr.Row(equal_height=False):
            with gr.Column(scale=8, min_width=300):
                with gr.Row(equal_height=True):
                    self.folder = gr.Dropdown(
                        self.workspace.picture_folders(),
                        value=None,
                        label="Folder",
                        allow_custom_value=True,
                        elem_id="data-folder",
                        scale=3,
                    )
                    self.upload = gr.File(
                        file_count="multiple",
                        file_types=["image", ".txt", ".caption", ".zip"],
                        label="Upload a new folder",
                        height=128,
                        show_label=False,
                        scale=2,
                    )
                self.gallery = gr.HTML(js_on_load=PICK, elem_id="data-gallery")
            with gr.Column(scale=4, min_width=280):
                self._side()
        self._listen()

    def _side(self) -> None:
        self.big = gr.HTML(elem_id="data-picture")
        self.caption = gr.Textbox(
            label="Caption",
            lines=3,
            max_lines=8,
            elem_id="caption",
            info="Kept where training reads it: beside the picture, or in the folder's metadata.jsonl.",
        )
        self.save = gr.Button("Save caption", variant="primary", elem_id="save-caption")
        with gr.Accordion("Find and replace in all captions", open=False):
            self.find = gr.Textbox(label="Find", elem_id="find")
            self.replace = gr.Textbox(label="Replace by", elem_id="replace")
            self.bulk = gr.Button("Replace in all", elem_id="replace-all")
        with gr.Accordion("Let a model write captions", open=False):
            self.captioner = gr.Textbox(
                "captioner-tiny",
                label="Captioner",
                info="captioner-tiny knows stickers only. Else a chat model: a folder or a hub name of transformers.",
                elem_id="captioner",
            )
            self.prefix = gr.Textbox(
                label="In front of each", info="Such as a trigger word.", elem_id="prefix"
            )
            self.overwrite = gr.Checkbox(False, label="Replace captions that are there", elem_id="overwrite")
            self.write = gr.Button("Write captions", elem_id="write-captions")
        with gr.Row():
            self.size = gr.Number(
                512, precision=0, label="Train at (pixels)", elem_id="data-size", min_width=120
            )
            self.check = gr.Button("Check the folder", elem_id="check-data", min_width=140)
        self.told = gr.HTML(elem_id="data-told")

    def _listen(self) -> None:
        self.folder.change(shown_error(self._open), self.folder, [self.gallery, self.chosen], **SETS)
        self.gallery.click(_picked, None, self.chosen, **SETS)
        self.chosen.change(
            shown_error(self._pick),
            [self.folder, self.chosen],
            [self.big, self.caption, self.gallery],
            **QUICK,
        )
        self.save.click(
            shown_error(self._save),
            [self.folder, self.chosen, self.caption],
            [self.gallery, self.told],
            **QUICK,
        )
        self.bulk.click(
            shown_error(self._replace),
            [self.folder, self.find, self.replace],
            [self.gallery, self.told],
            **QUICK,
        )
        self.upload.upload(shown_error(self._take), self.upload, [self.folder, self.upload], queue=False)
        self.check.click(
            shown_error(self._check), [self.folder, self.size], [self.told, self.watched], **SETS
        )
        self.write.click(
            shown_error(self._write),
            [self.folder, self.captioner, self.prefix, self.overwrite],
            [self.told, self.watched],
            **SETS,
        )
        self.page.follow(self.watched, self.told, self._told)
        self.told.change(self._captioned, [self.folder, self.watched], self.gallery, **QUICK)
        self.page.on_load(
            lambda: (gr.Dropdown(choices=self.workspace.picture_folders()), self._gallery("", "")),
            [self.folder, self.gallery],
        )

    def _records(self, folder: str) -> list[Record]:
        return list(layouts.find(self.workspace.inside(folder, "data"), "auto").records)

    def _gallery(self, folder: str, chosen: str) -> str:
        if not folder:
            return parts.nothing(
                "Choose a folder", "Its pictures and captions appear here; pick one to edit its caption."
            )
        records = self._records(folder)
        cells = "".join(self._cell(record, chosen) for record in records[:_SHOWN])
        more = parts.note(f"{len(records) - _SHOWN} more are not shown.") if len(records) > _SHOWN else ""
        return f'<p class="lead">{len(records)} pictures</p><div class="gallery">{cells}</div>{more}'

    def _cell(self, record: Record, chosen: str) -> str:
        name, url = self.workspace.relative(record.path), self.workspace.url(record.path)
        mark = " chosen" if name == chosen else ""
        mask = " · has a mask" if record.mask else ""
        text = escape(record.caption or "no caption")
        button = f'<button class="pick{mark}" data-pick="{escape(name, quote=True)}"><img src="{url}" alt="{text}" loading="lazy"></button>'
        return f"<figure>{button}<figcaption>{text}{mask}</figcaption></figure>"

    def _open(self, folder: str) -> tuple[str, str]:
        return self._gallery(folder or "", ""), ""

    def _one(self, folder: str, name: str) -> Record:
        """The record that was picked; a name that the folder does not hold is refused."""
        found = next((r for r in self._records(folder) if self.workspace.relative(r.path) == name), None)
        if found is None:
            raise StudioError(f"{name!r} is no picture of {folder!r}; pick one of those shown.")
        return found

    def _pick(self, folder: str, name: str) -> Any:
        if not name:
            return "", "", gr.skip()
        record = self._one(folder, name)
        files = [(record.path, record.path.name), *([(record.mask, "mask")] if record.mask else [])]
        return parts.gallery(self.workspace, files), record.caption, self._gallery(folder, name)

    def _save(self, folder: str, name: str, text: str) -> tuple[str, str]:
        if not name:
            raise StudioError("Pick a picture first.", field="caption")
        captions.write(self._writable(self._one(folder, name)), text)
        return self._gallery(folder, name), parts.note("Saved.", "good")

    def _writable(self, record: Record) -> Path:
        """The picture, if its captions may be changed: nothing embedded is."""
        if self.workspace.root not in record.path.resolve().parents or "assets" in record.path.parts:
            raise StudioError("The embedded samples cannot be changed; upload a copy.", field="data")
        return record.path

    def _replace(self, folder: str, find: str, by: str) -> tuple[str, str]:
        if not find:
            raise StudioError("There is nothing to find; write a word.", field="find")
        found = [record for record in self._records(folder or "") if find in record.caption]
        for record in found:
            captions.write(self._writable(record), record.caption.replace(find, by))
        return self._gallery(folder, ""), parts.note(f"Changed {len(found)} captions.", "good")

    def _take(self, files: list[str]) -> Any:
        name = self.workspace.relative(store(files, self.workspace, self.page.settings))
        return gr.Dropdown(choices=self.workspace.picture_folders(), value=name), None

    def _check(self, folder: str, size: int) -> tuple[str, int]:
        if not folder:
            raise StudioError("Choose a folder first.", field="data")
        payload = {"folder": str(self.workspace.inside(folder, "data")), "size": int(size)}
        job = self.workspace.jobs.add(
            "data", payload, title=f"Check of {folder}", device=least_busy(self.workspace.jobs)
        )
        return self.page.told(job), job

    def _write(self, folder: str, model: str, prefix: str, overwrite: bool) -> tuple[str, int]:
        if not folder:
            raise StudioError("Choose a folder first.", field="data")
        for record in self._records(folder):
            self._writable(record)
        settings = {"model": model.strip(), "prefix": prefix.strip(), "overwrite": overwrite}
        self.workspace.check({"model": settings["model"]}, {})
        serial.from_dict(Captioning, settings)
        payload = {"folder": str(self.workspace.inside(folder, "data")), "settings": settings}
        device = least_busy(self.workspace.jobs)
        job = self.workspace.jobs.add("caption", payload, title=f"Captions of {folder}", device=device)
        return self.page.told(job), job

    def _captioned(self, folder: str, job: int) -> Any:
        """The gallery with the captions that a job has written."""
        found = self.workspace.jobs.get(job) if job else None
        written = found is not None and found.kind == "caption" and found.state == "done"
        return self._gallery(folder, "") if written else gr.skip()

    def _told(self, job: int) -> str:
        found = self.workspace.jobs.get(job)
        if found.state != "done":
            return self.page.told(job)
        if found.kind == "caption":
            count = len(found.result["captions"])
            return parts.note(f"{count} captions written; pick a picture to edit its own.", "good")
        kind = "good" if found.result["can_train"] else "error"
        rows = [
            (finding["kind"], Path(finding["path"]).name, finding["detail"])
            for finding in found.result["findings"]
        ]
        crops = [(path, Path(path).stem.replace("_", " ")) for path in found.result["crops"]]
        shown = (
            f'<h3 class="part">As training sees them</h3>{parts.gallery(self.workspace, crops)}'
            if crops
            else ""
        )
        return (
            parts.note(found.result["verdict"], kind)
            + (parts.table(["finding", "picture", "detail"], rows) if rows else "")
            + shown
        )


def _picked(event: gr.EventData) -> str:
    return str(event._data.get("pick", ""))
