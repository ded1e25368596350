"""The Data page: pictures with their captions, edited in place, replaced in bulk, and checked before training."""

from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from studio.chat.config import Captioning
from studio.data import layouts
from studio.data.layouts import Record
from studio.errors import StudioError
from studio.queue.jobs import Job
from studio.settings import serial
from ui import captions, parts
from ui.page import QUICK, SETS, Page, clickable, picked

_SHOWN = 200
_EMPTY = "Its pictures and captions appear here; pick one to edit its caption."
_WHERE = "Kept where training reads it: beside the picture, or in the folder's metadata.jsonl."
_CAPTIONER = "captioner-tiny knows stickers only. Else a chat model: a folder or a hub name of transformers."


class DataPage:
    """The components of the page, and what they do."""

    def __init__(self, page: Page) -> None:
        self.page, self.workspace = page, page.workspace
        self.watched, self.chosen = gr.State(0), gr.State("")
        self.told = clickable("data-told", render=False)
        with gr.Row(equal_height=False):
            with gr.Column(scale=8, min_width=300):
                with gr.Row(equal_height=True):
                    self.folder = gr.Dropdown(
                        self.workspace.picture_folders(),
                        value=None,
                        label="Folder",
                        info="A folder with pictures, or drop a new one beside.",
                        allow_custom_value=True,
                        scale=3,
                        **_named("data", "data-folder"),
                    )
                    page.upload(self.folder, self.told, scale=2, elem_id="data-upload")
                self.gallery = clickable("data-gallery")
                self.checked = gr.HTML(elem_id="data-checked")
            with gr.Column(scale=4, min_width=280, elem_classes="beside"):
                self._side()
        self._listen()

    def _side(self) -> None:
        self.told.render()
        self.big = gr.HTML(elem_id="data-picture")
        self.caption = gr.Textbox(label="Caption", lines=3, max_lines=8, info=_WHERE, **_named("caption"))
        self.save = gr.Button("Save caption", variant="primary", elem_id="save-caption")
        with gr.Accordion("Find and replace in all captions", open=False, elem_id="find-fold"):
            self.find = gr.Textbox(label="Find", **_named("find"))
            self.replace = gr.Textbox(label="Replace by", elem_id="replace")
            self.bulk = gr.Button("Replace in all", elem_id="replace-all")
        with gr.Accordion("Let a model write captions", open=False, elem_id="write-fold"):
            self.captioner = gr.Textbox(
                "captioner-tiny", label="Captioner", info=_CAPTIONER, **_named("model", "captioner")
            )
            self.prefix = gr.Textbox(
                label="In front of each", info="Such as a trigger word.", elem_id="prefix"
            )
            self.overwrite = gr.Checkbox(False, label="Replace captions that are there", elem_id="overwrite")
            self.write = gr.Button("Write captions", elem_id="write-captions")
        with gr.Accordion("Check before training", open=False, elem_id="check-fold"):
            self.size = gr.Number(512, precision=0, label="Train at (pixels)", **_named("size", "data-size"))
            self.check = gr.Button("Check the folder", elem_id="check-data")

    def _listen(self) -> None:
        act, picture = self.page.act, [self.chosen, self.big, self.caption, self.checked]
        edited, started = [self.told, self.gallery], [self.told, self.watched]
        act(self.folder.change, self._open, self.folder, [*edited, *picture], **SETS)
        self.gallery.click(picked, None, self.chosen, **SETS)
        pick = [self.folder, self.chosen]
        act(self.chosen.change, self._pick, pick, [*edited, self.big, self.caption], **QUICK)
        act(self.save.click, self._save, [*pick, self.caption], edited, **QUICK)
        act(
            self.bulk.click,
            self._replace,
            [self.folder, self.find, self.replace],
            [*edited, *picture],
            **SETS,
        )
        act(self.check.click, self._check, [self.folder, self.size], started, **SETS)
        written = [self.folder, self.captioner, self.prefix, self.overwrite]
        act(self.write.click, self._write, written, started, **SETS)
        self.page.follow(self.watched, [self.told, self.gallery, self.checked], self._done)
        folders = self.workspace.picture_folders
        self.page.when_opened("data", lambda: gr.Dropdown(choices=folders()), self.folder)
        self.page.blocks.load(lambda: self._gallery("", ""), None, self.gallery, **QUICK)

    def _records(self, folder: str | None) -> list[Record]:
        if not folder:
            raise StudioError("Choose a folder first.", field="data")
        return list(layouts.find(self.workspace.inside(folder, "data"), "auto").records)

    def _gallery(self, folder: str | None, chosen: str) -> str:
        if not folder:
            return parts.nothing("Choose a folder", _EMPTY)
        records = self._records(folder)
        cells = "".join(self._cell(record, chosen) for record in records[:_SHOWN])
        more = parts.note(f"{len(records) - _SHOWN} more are not shown.") if len(records) > _SHOWN else ""
        return f'<p class="lead">{len(records)} pictures</p><div class="gallery">{cells}</div>{more}'

    def _cell(self, record: Record, chosen: str) -> str:
        name, url = self.workspace.relative(record.path), self.workspace.url(record.path)
        mark = " chosen" if name == chosen else ""
        mask = " · has a mask" if record.mask else ""
        text = escape(record.caption or "no caption")
        button = (
            f'<button class="pick{mark}" data-pick="{escape(name, quote=True)}">'
            f'<img src="{url}" alt="{escape(text, quote=True)}" loading="lazy"></button>'
        )
        return f"<figure>{button}<figcaption>{text}{mask}</figcaption></figure>"

    def _open(self, folder: str | None) -> tuple[str, ...]:
        return "", self._gallery(folder, ""), "", "", "", ""

    def _one(self, folder: str, name: str) -> Record:
        """The record that was picked; a name that the folder does not hold is refused."""
        found = next((r for r in self._records(folder) if self.workspace.relative(r.path) == name), None)
        if found is None:
            raise StudioError(f"{name!r} is no picture of {folder!r}; pick one of those shown.")
        return found

    def _pick(self, folder: str, name: str) -> Any:
        if not name:
            return gr.skip(), gr.skip(), "", ""
        record = self._one(folder, name)
        files = [(record.path, record.path.name), *([(record.mask, "mask")] if record.mask else [])]
        return "", self._gallery(folder, name), parts.gallery(self.workspace, files), record.caption

    def _save(self, folder: str | None, name: str, text: str) -> tuple[str, str]:
        self._records(folder)
        if not name:
            raise StudioError("Pick a picture first: the caption is kept with it.", field="caption")
        captions.write(self._writable(self._one(str(folder), name)), text)
        return parts.note("Saved.", "good"), self._gallery(folder, name)

    def _writable(self, record: Record) -> Path:
        """The picture, if its captions may be changed: nothing embedded is."""
        if self.workspace.root not in record.path.resolve().parents or "assets" in record.path.parts:
            raise StudioError("The embedded samples cannot be changed; upload a copy.", field="data")
        return record.path

    def _replace(self, folder: str | None, find: str, by: str) -> tuple[str, ...]:
        records = self._records(folder)
        if not find:
            raise StudioError("There is nothing to find; write a word.", field="find")
        found = [record for record in records if find in record.caption]
        if not found:
            raise StudioError(f"No caption holds {find!r}; write it as the captions do.", field="find")
        for record in found:
            captions.write(self._writable(record), record.caption.replace(find, by))
        told = parts.note(f"Changed {len(found)} captions.", "good")
        return told, self._gallery(folder, ""), "", "", "", ""

    def _check(self, folder: str | None, size: int | None) -> tuple[str, int]:
        self._records(folder)
        if not size or not 16 <= size <= 8192:
            raise StudioError(f"The side is given as {size}; give 16 to 8192 pixels.", field="size")
        payload = {"folder": str(self.workspace.inside(str(folder), "data")), "size": int(size)}
        return "", self.workspace.submit("data", payload, f"Check of {folder}")

    def _write(self, folder: str | None, model: str, prefix: str, overwrite: bool) -> tuple[str, int]:
        for record in self._records(folder):
            self._writable(record)
        settings = {"model": model.strip(), "prefix": prefix.strip(), "overwrite": overwrite}
        if not settings["model"]:
            raise StudioError("There is no captioner; captioner-tiny is embedded.", field="model")
        self.workspace.check({"model": settings["model"]}, {})
        serial.from_dict(Captioning, settings)
        payload = {"folder": str(self.workspace.inside(str(folder), "data")), "settings": settings}
        return "", self.workspace.submit("caption", payload, f"Captions of {folder}")

    def _done(self, job: Job) -> list[Any]:
        if job.kind == "caption":
            folder, count = self.workspace.relative(job.payload["folder"]), len(job.result["captions"])
            told = parts.note(f"{count} captions written; pick a picture to edit its own.", "good")
            if not count:
                told = parts.note("Nothing written: every picture has a caption; tick to replace those.")
            return [told, self._gallery(folder, ""), gr.skip()]
        kind = "good" if job.result["can_train"] else "error"
        return [parts.note(job.result["verdict"], kind), gr.skip(), self._findings(job)]

    def _findings(self, job: Job) -> str:
        """What the check found, and what training would see."""
        rows = [(each["kind"], Path(each["path"]).name, each["detail"]) for each in job.result["findings"]]
        crops = [(path, Path(path).stem.replace("_", " ")) for path in job.result["crops"]]
        table = parts.section("Findings", parts.table(["finding", "picture", "detail"], rows)) if rows else ""
        seen = parts.gallery(self.workspace, crops)
        return table + (parts.section("As training sees them", seen) if crops else "")


def _named(field: str, name: str = "") -> dict[str, Any]:
    """The names by which tests and errors find a field."""
    return {"elem_id": name or field, "elem_classes": f"field-{field}"}
