"""The Evaluate page: measure an artifact or a classifier, and read the reports."""

import time
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from studio.errors import StudioError
from studio.matching.config import VlmEval
from studio.metrics.config import SubjectEval
from studio.queue.jobs import Job, Kind
from studio.settings import serial
from studio.vision.config import Nullspace, Robustness
from ui import forms, parts
from ui.forms import Leaf
from ui.page import QUICK, SETS, Page, clickable, picked

_KINDS: dict[str, tuple[str, Kind, type, tuple[str, ...]]] = {
    "Subject": ("How well an artifact draws its subject, against the model it started from.", "subject", SubjectEval,
                ("artifact", "data", "num_images", "steps", "guidance", "strength", "prompts", "token", "class_word")),
    "Robustness": ("A classifier under corruptions, shifts and attacks, and whether the attacks can be trusted.", "robustness", Robustness,
                   ("model", "data.train", "num_images", "corruptions", "severities", "attacks.names", "attacks.steps", "checks", "before")),
    "CLIP": ("A CLIP or SigLIP: names, new names, retrieval, composition, and what finetuning took.", "vlm", VlmEval,
                        ("model", "data.train", "before", "templates", "num_images", "order", "shots", "pairs", "num_pairs")),
    "Nullspace": ("What a vision transformer cannot see, as numbers and pictures.", "nullspace", Nullspace,
                  ("model", "data.train", "before", "num_images", "noise", "seed")),
}  # fmt: skip
_WIDE = ("artifact", "data", "model")
_MAX_REPORT = 24_000_000


class EvaluatePage:
    """The components of the page, and what they do."""

    def __init__(self, page: Page) -> None:
        self.page, self.workspace = page, page.workspace
        self.watched, self.report = gr.State(0), gr.State("")
        with gr.Row(equal_height=False):
            with gr.Column(scale=5, min_width=300):
                names = list(_KINDS)
                self.kind = gr.Radio(names, value=names[0], label="What to measure", elem_id="evaluation")
                drawn = [self.kind.change, page.blocks.load]
                gr.render([self.kind], drawn, show_progress="hidden")(self._form)
                self.told = clickable("evaluation-told")
            with gr.Column(scale=8, min_width=300):
                self.found = clickable("reports")
                self.shown = gr.HTML(elem_id="report")
        page.follow(self.watched, [self.told, self.found, self.report], self._done)
        page.when_opened("evaluate", self._reports, self.found, self.report)
        self.found.click(picked, None, self.report, **SETS)
        page.act(self.report.change, self._show, self.report, [self.shown, self.found], **QUICK)

    def _form(self, kind: str) -> None:
        about, name, cls, names = _KINDS[kind]
        gr.HTML(f'<p class="lead">{escape(about)}</p>')
        leaves = {leaf.name: leaf for leaf in forms.leaves(cls, {})}
        fields = [leaves[each] for each in names if each in leaves]
        made = {leaf.name: self._box(leaf) for leaf in fields if leaf.name in _WIDE}
        with gr.Row(elem_classes="fields"):
            made |= {leaf.name: self._box(leaf) for leaf in fields if leaf.name not in _WIDE}
        start = gr.Button("Measure", variant="primary", elem_id="measure")
        boxes, lists = [made[leaf.name] for leaf in fields], self._lists()
        named = [name for name in lists if name in made]
        if named:
            self.page.here["evaluate"].select(
                lambda: _new_choices([lists[name] for name in named]),
                None,
                [made[name] for name in named],
                **QUICK,
            )
        self.page.act(start.click, self._measure(name, cls, fields), boxes, [self.told, self.watched], **SETS)

    def _lists(self) -> dict[str, Callable[[], list[str]]]:
        return {"artifact": self.workspace.artifacts, "data": self.workspace.picture_folders}

    def _box(self, leaf: Leaf) -> Any:
        lists = self._lists()
        named = f"eval-{leaf.name.replace('.', '-')}"
        if leaf.name not in lists:
            return forms.draw(leaf, elem_id=named, min_width=180)
        look: dict[str, Any] = {"label": leaf.label, "info": leaf.info, "elem_classes": f"field-{leaf.name}"}
        return gr.Dropdown(lists[leaf.name](), value=None, allow_custom_value=True, elem_id=named, **look)

    def _measure(self, kind: Kind, cls: type, fields: Sequence[Leaf]) -> Callable[..., Any]:
        def measure(*given: Any) -> tuple[str, int]:
            for leaf, value in zip(fields, given, strict=True):
                if leaf.name in ("artifact", "data", "model") and not value:
                    raise StudioError(f"{leaf.label} is missing; choose one.", field=leaf.name)
            values = forms.collect(fields, given)
            self.workspace.check(values, forms.defaults(cls))
            self._check_there(values)
            payload = serial.to_dict(serial.from_dict(cls, values))
            subject = str(values.get("artifact") or values.get("model"))
            payload |= {} if payload["output"] else {"output": str(self._output(kind, subject))}
            return "", self.workspace.submit(kind, payload, f"{kind.capitalize()} of {Path(subject).name}")

        return measure

    def _check_there(self, values: dict[str, Any]) -> None:
        """Refuse an artifact or data that is neither of the list nor in the workspace."""
        for name, known in (("artifact", self.workspace.artifacts()), ("data", [])):
            given = values.get(name, "")
            if isinstance(given, str) and given not in known and not (self.workspace.root / given).exists():
                raise StudioError(
                    f"{name.capitalize()} {given!r} does not exist; choose one of the list.", field=name
                )

    def _output(self, kind: str, subject: str) -> Path:
        """Results of a run lie in it; others beside the runs."""
        folder = self.workspace.root / subject
        if (folder / "config.json").is_file():
            return folder / ("eval" if kind == "subject" else kind)
        return self.workspace.root / "evaluations" / f"{kind}-{Path(subject).stem}"

    def _done(self, job: Job) -> list[Any]:
        rows = [[str(cell) for cell in row] for row in job.result["table"]]
        told = parts.note(job.result["summary"] or "Done.", "good") + (parts.table([], rows) if rows else "")
        report = self.workspace.relative(job.result["report"])
        return [told, self._reports(report), report]

    def _reports(self, chosen: str) -> str:
        files = _reports_in(self.workspace.root)
        if not files:
            text = "Choose what to measure on the left; its report, with pictures and curves, is kept here."
            return parts.nothing("No reports yet", text)
        cards = [self._card(file, chosen) for file in files]
        return f'<div class="cards short">{"".join(cards)}</div>'

    def _card(self, file: Path, chosen: str) -> str:
        name, folder = self.workspace.relative(file), file.parent
        is_run = folder.parent == self.workspace.runs
        title = folder.name if is_run or folder.parent.name == "evaluations" else folder.parent.name
        what = "run" if is_run else "evaluation"
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(file.stat().st_mtime))
        return parts.card(
            name, title, what, line=f"{self.workspace.relative(folder)} · {when}", chosen=name == chosen
        )

    def _show(self, name: str) -> tuple[str, str]:
        if not name:
            return "", self._reports("")
        path = self.workspace.inside(name)
        if path not in _reports_in(self.workspace.root) or path.stat().st_size > _MAX_REPORT:
            return parts.note("This report cannot be shown.", "error"), self._reports("")
        text = escape(path.read_text(encoding="utf-8"), quote=True)
        return f'<iframe class="report" sandbox="" title="Report" srcdoc="{text}"></iframe>', self._reports(
            name
        )


def _new_choices(lists: Sequence[Callable[[], list[str]]]) -> Any:
    found = [gr.Dropdown(choices=choices()) for choices in lists]
    return found if len(found) > 1 else found[0]


def _reports_in(root: Path) -> list[Path]:
    places = ("runs/*/report.html", "runs/*/*/report.html", "evaluations/*/report.html")
    found = [path for place in places for path in root.glob(place)]
    return sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)[:40]
