"""The Evaluate page: measure an artifact or a classifier, and read the reports."""

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from studio import serial
from studio.errors import StudioError
from studio.jobs import Kind
from studio.matching.config import VlmEval
from studio.metrics.config import SubjectEval
from studio.supervisor import least_busy
from studio.vision.config import Nullspace, Robustness
from ui import forms, parts
from ui.forms import Leaf
from ui.page import QUICK, SETS, Page
from ui.theme import PICK

_KINDS: dict[str, tuple[str, Kind, type, tuple[str, ...]]] = {
    "Subject": ("How well an artifact draws its subject, against the model it started from.", "subject", SubjectEval,
                ("artifact", "data", "num_images", "steps", "guidance", "strength", "prompts", "token", "class_word")),
    "Robustness": ("A classifier under corruptions, shifts and attacks, and whether the attacks can be trusted.", "robustness", Robustness,
                   ("model", "data.train", "num_images", "corruptions", "severities", "attacks.names", "attacks.steps", "checks", "before")),
    "Vision-language": ("A CLIP or SigLIP: names, new names, retrieval, composition, and what finetuning took.", "vlm", VlmEval,
                        ("model", "data.train", "before", "templates", "num_images", "order", "shots", "pairs", "num_pairs")),
    "Nullspace": ("What a vision transformer cannot see, as numbers and pictures.", "nullspace", Nullspace,
                  ("model", "data.train", "before", "num_images", "noise", "seed")),
}  # fmt: skip
_MAX_REPORT = 24_000_000


def build(page: Page) -> None:
    """Draw the page."""
    EvaluatePage(page)


class EvaluatePage:
    """The components of the page, and what they do."""

    def __init__(self, page: Page) -> None:
        self.page, self.workspace = page, page.workspace
        self.watched, self.report = gr.State(0), gr.State("")
        with gr.Row(equal_height=False):
            with gr.Column(scale=4, min_width=300):
                self.kind = gr.Radio(
                    list(_KINDS), value="Subject", label="What to measure", elem_id="evaluation"
                )
                gr.render([self.kind], [self.kind.change, page.blocks.load], show_progress="hidden")(
                    self._form
                )
                self.told = gr.HTML(elem_id="evaluation-told")
            with gr.Column(scale=8, min_width=300):
                self.found = gr.HTML(js_on_load=PICK, elem_id="reports")
                self.shown = gr.HTML(elem_id="report")
        page.follow(self.watched, self.told, self._told)
        for opened in (page.here["evaluate"].select, page.blocks.load):
            opened(self._reports, None, self.found, **QUICK)
        self.watched.change(self._reports, None, self.found, **QUICK)
        self.found.click(_picked, None, self.report, **SETS)
        self.report.change(self._show, self.report, self.shown, **QUICK)

    def _form(self, kind: str) -> None:
        about, name, cls, names = _KINDS[kind]
        gr.HTML(f'<p class="lead">{escape(about)}</p>')
        leaves = {leaf.name: leaf for leaf in forms.leaves(cls, {})}
        fields = [leaves[each] for each in names if each in leaves]
        wide = [leaf for leaf in fields if leaf.name in ("artifact", "data", "model")]
        made = {leaf.name: self._box(leaf) for leaf in wide}
        with gr.Row():
            made |= {leaf.name: self._box(leaf) for leaf in fields if leaf not in wide}
        boxes = [made[leaf.name] for leaf in fields]
        start = gr.Button("Measure", variant="primary", elem_id="measure")

        def begin(*given: Any) -> Any:
            return self._begin(name, cls, fields, given)

        start.click(begin, boxes, [self.told, self.watched], **SETS)

    def _box(self, leaf: Leaf) -> Any:
        options: dict[str, Any] = {
            "label": leaf.label,
            "info": leaf.info,
            "elem_id": f"eval-{leaf.name.replace('.', '-')}",
            "allow_custom_value": True,
        }
        if leaf.name == "artifact":
            return gr.Dropdown(self.workspace.artifacts(), value=None, **options)
        if leaf.name == "data":
            return gr.Dropdown(self.workspace.picture_folders(), value=None, **options)
        return forms.draw(leaf, elem_id=options["elem_id"], min_width=190)

    def _begin(self, kind: Kind, cls: type, fields: Sequence[Leaf], given: Sequence[Any]) -> Any:
        try:
            empty = [
                leaf
                for leaf, value in zip(fields, given, strict=True)
                if leaf.name in ("artifact", "data") and not value
            ]
            if empty:
                raise StudioError(f"{empty[0].label} is missing; choose one.", field=empty[0].name)
            values = forms.collect(fields, given)
            self.workspace.check(values, forms.defaults(cls))
            payload = serial.to_dict(serial.from_dict(cls, values))
            subject = str(values.get("artifact") or values.get("model"))
            payload |= {} if payload["output"] else {"output": str(self._output(kind, subject))}
            title = f"{kind.capitalize()} of {Path(subject).name}"
            job = self.workspace.jobs.add(kind, payload, title=title, device=least_busy(self.workspace.jobs))
        except StudioError as error:
            return parts.note(str(error), "error"), 0
        return self.page.told(job), job

    def _output(self, kind: str, subject: str) -> Path:
        """Results of a run lie in it; others beside the runs."""
        folder = self.workspace.root / subject
        if (folder / "config.json").is_file():
            return folder / ("eval" if kind == "subject" else kind)
        return self.workspace.root / "evaluations" / f"{kind}-{Path(subject).stem}"

    def _told(self, job: int) -> str:
        found = self.workspace.jobs.get(job)
        if found.state != "done":
            return self.page.told(job)
        rows = [[str(cell) for cell in row] for row in found.result["table"]]
        return parts.note(found.result["summary"] or "Done.", "good") + (
            parts.table([], rows) if rows else ""
        )

    def _reports(self) -> str:
        files = _reports_in(self.workspace.root)
        if not files:
            return parts.nothing(
                "No reports yet",
                "Choose what to measure on the left; its report, with pictures and curves, is kept here.",
            )
        cards = [
            parts.card(
                self.workspace.relative(f),
                self.workspace.relative(f.parent),
                "done",
                line=f"{f.parent.name} · {parts.size(f)}",
            )
            for f in files
        ]
        return f'<div class="cards" style="max-height:220px">{"".join(cards)}</div>'

    def _show(self, name: str) -> str:
        path = self.workspace.inside(name)
        if path not in _reports_in(self.workspace.root) or path.stat().st_size > _MAX_REPORT:
            return parts.note("This report cannot be shown.", "error")
        text = path.read_text(encoding="utf-8")
        return (
            f'<iframe class="report" sandbox="" title="Report" srcdoc="{escape(text, quote=True)}"></iframe>'
        )


def _picked(event: gr.EventData) -> str:
    return str(event._data.get("pick", ""))


def _reports_in(root: Path) -> list[Path]:
    found = [
        *root.glob("runs/*/report.html"),
        *root.glob("runs/*/*/report.html"),
        *root.glob("evaluations/*/report.html"),
    ]
    return sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)[:40]
