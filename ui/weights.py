"""What a picture is drawn with, on the Sample page: a model, artifacts, pictures of the subject, and edits."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from studio.catalog import methods
from studio.records import trained
from studio.settings import serial
from studio.settings.sampling import SampleRequest
from ui import forms
from ui.page import QUICK, Page
from ui.requests import FIELDS, NUM_ARTIFACTS, Edits
from ui.uploads import store

_SHOWN_EDIT = ("undesired", "strength", "rows", "protect", "max_rank", "energy")


class Weights:
    """The components, in the order in which `ui.requests` reads them."""

    def __init__(self, page: Page) -> None:
        self.page, self.workspace = page, page.workspace
        self.edits: Edits = []
        self.folds: dict[str, gr.Accordion] = {}
        own = "Empty: the one that the first artifact was trained on, or studio-tiny."
        self.model = forms.draw(FIELDS["model"], info=own, elem_id="model")
        self.artifacts, self.strengths = self._artifacts()
        self.shown, self.kept = self._references()
        self._edits()

    @property
    def inputs(self) -> list[Any]:
        """Every component that says something about a request."""
        edits = [box for _, _, boxes in self.edits for box in boxes]
        return [self.model, *self.artifacts, *self.strengths, self.kept, *edits]

    @property
    def restored(self) -> list[Any]:
        """The components that a recipe fills in."""
        edits = [box for _, _, boxes in self.edits for box in boxes]
        places = [*self.artifacts, *self.strengths, *self.rows]
        return [self.model, *places, self.shown, self.kept, *self.folds.values(), *edits]

    def restore(self, found: SampleRequest) -> tuple[list[Any], list[str]]:
        """What a recipe says of them, and what it names that is not there any more."""
        pairs = list(zip(found.artifact, found.strengths(), strict=True))
        known = [(name, strength) for path, strength in pairs if (name := self.workspace.artifact(path))]
        known, spare = known[:NUM_ARTIFACTS], NUM_ARTIFACTS - len(known[:NUM_ARTIFACTS])
        rows = [gr.Row(visible=number <= len(known)) for number in range(NUM_ARTIFACTS)]
        pictures = [path for path in found.reference if self.workspace.holds(path) and Path(path).is_file()]
        kept = {name for name, _ in known} | set(pictures)
        named = [*map(self.workspace.artifact, found.artifact), *found.reference]
        values = [
            *(found.model, *(name for name, _ in known), *[None] * spare),
            *(*(strength for _, strength in known), *[1.0] * spare, *rows),
            *(pictures or None, pictures, *self._restored_edits(found)),
        ]
        return values, [Path(name).name or "an artifact" for name in named if name not in kept]

    def _restored_edits(self, found: SampleRequest) -> list[Any]:
        given = [json.loads(edit) if edit.startswith("{") else {"kind": edit} for edit in found.edits]
        by_kind = {edit["kind"]: edit for edit in given}
        values: list[Any] = [gr.Accordion(open=name in by_kind) for name in self.folds]
        for name, leaves, _ in self.edits:
            now = serial.flatten({name: by_kind.get(name, {})})
            fields = [dataclasses.replace(leaf, value=now.get(leaf.name, leaf.value)) for leaf in leaves]
            values += [name in by_kind, *map(forms.held, fields)]
        return values

    def choices(self) -> list[Any]:
        """The artifacts that there are now, one list for each place."""
        found = [("nothing", ""), *((name, name) for name in self.workspace.artifacts())]
        return [gr.Dropdown(choices=found)] * NUM_ARTIFACTS

    def _artifacts(self) -> tuple[list[gr.Dropdown], list[gr.Slider]]:
        artifacts, strengths, self.rows = [], [], []
        for number in range(NUM_ARTIFACTS):
            with gr.Row(visible=number == 0, equal_height=True) as row:
                look: dict[str, Any] = {"label": f"Artifact {number + 1}", "scale": 3, "min_width": 180}
                look |= {"elem_id": f"artifact-{number}", "elem_classes": "" if number else "field-artifact"}
                artifacts.append(gr.Dropdown(self.workspace.artifacts(), value=None, **look))
                look = {"label": "Strength", "scale": 2, "min_width": 140}
                strengths.append(gr.Slider(-1, 2, value=1, step=0.05, **look))
            self.rows.append(row)
            if number:
                artifacts[number - 1].input(lambda: gr.Row(visible=True), None, row, **QUICK)
        return artifacts, strengths

    def _references(self) -> tuple[gr.File, gr.State]:
        """Pictures of a subject, for artifacts that look at some; kept in the workspace, where recipes find them."""
        title = "Pictures of a subject, for artifacts that look at some"
        with gr.Accordion(title, open=False, elem_classes="field-reference") as fold:
            shown = gr.File(
                file_count="multiple",
                file_types=["image"],
                label="Reference pictures",
                height=120,
                elem_id="references",
            )
            told, kept = gr.HTML(), gr.State([])

        def keep(files: Sequence[str] | None) -> tuple[str, list[str]]:
            if not files:
                return "", []
            folder = store(files, self.workspace, self.page.settings, "references")
            return "", sorted(str(path) for path in folder.iterdir())

        for changed in (shown.upload, shown.delete):
            self.page.act(changed, keep, shown, [told, kept], queue=False)
        shown.clear(lambda: [], None, kept, **QUICK)
        for artifact in self.artifacts:
            artifact.change(self._unfold, self.artifacts, fold, **QUICK)
        return shown, kept

    def _unfold(self, *names: str) -> Any:
        """Show where references go once an artifact asks for some."""
        found = [trained.find(self.workspace.weights(name)) for name in names if name]
        needs = any(own and methods.card(own.method).needs_references for own in found)
        return gr.Accordion(open=True) if needs else gr.skip()

    def _edits(self) -> None:
        """One block for each edit in the catalog, drawn from its settings."""
        cards = methods.listed()
        for card in (each for each in cards if each.edit):
            with gr.Accordion(
                f"{card.title}: {card.summary}", open=False, elem_id=f"edit-{card.name}"
            ) as self.folds[card.name]:
                used = gr.Checkbox(False, label=f"Use {card.title}", elem_id=f"use-{card.name}")
                leaves = list(forms.leaves(card.config, {}, f"{card.name}."))
                shown = [leaf for leaf in leaves if leaf.name.rpartition(".")[2] in _SHOWN_EDIT] or leaves
                with gr.Row():
                    boxes = [
                        forms.draw(each, elem_id=each.name.replace(".", "-"), min_width=200) for each in shown
                    ]
                self.edits.append((card.name, shown, [used, *boxes]))
