"""What a picture is drawn with, on the Sample page: a model, artifacts, pictures of the subject, and edits."""

from collections.abc import Sequence
from typing import Any

import gradio as gr

from studio import catalog
from studio.models.config import SampleRequest
from ui import forms
from ui.page import QUICK, Page, shown_error
from ui.requests import NUM_ARTIFACTS, Edits
from ui.uploads import store

_SHOWN_EDIT = ("undesired", "strength", "rows", "protect", "max_rank", "energy")


class Weights:
    """The components, in the order in which `ui.requests` reads them."""

    def __init__(self, page: Page) -> None:
        self.page, self.workspace = page, page.workspace
        self.edits: Edits = []
        self.model = gr.Textbox(
            label="Model",
            info="Empty: the one that the first artifact was trained on, or studio-tiny.",
            elem_id="model",
        )
        self.artifacts, self.strengths = self._artifacts()
        self.references, self.kept = self._references()
        self._edits()

    @property
    def inputs(self) -> list[Any]:
        """Every component that says something about a request."""
        edits = [box for _, _, boxes in self.edits for box in boxes]
        return [self.model, *self.artifacts, *self.strengths, self.kept, *edits]

    @property
    def restored(self) -> list[Any]:
        """The components that a recipe fills in."""
        return [self.model, *self.artifacts, *self.strengths, self.references, self.kept]

    def restore(self, found: SampleRequest) -> list[Any]:
        """What a recipe says of them; what lies outside of the workspace is left out."""
        pairs = zip(found.artifact, found.strengths(), strict=True)
        known = [(self.workspace.artifact(path), strength) for path, strength in pairs]
        inside = [(name, strength) for name, strength in known if name]
        names = [*(name for name, _ in inside), *[None] * NUM_ARTIFACTS][:NUM_ARTIFACTS]
        strengths = [*(strength for _, strength in inside), *[1.0] * NUM_ARTIFACTS][:NUM_ARTIFACTS]
        pictures = [path for path in found.reference if self.workspace.holds(path)]
        return [found.model, *names, *strengths, pictures or None, pictures]

    def choices(self) -> list[Any]:
        """The artifacts that there are now, one list for each place."""
        found = [("nothing", ""), *((name, name) for name in self.workspace.artifacts())]
        return [gr.Dropdown(choices=found)] * NUM_ARTIFACTS

    def _artifacts(self) -> tuple[list[gr.Dropdown], list[gr.Slider]]:
        artifacts, strengths = [], []
        for number in range(NUM_ARTIFACTS):
            with gr.Row(visible=number == 0, equal_height=True) as row:
                artifacts.append(
                    gr.Dropdown(
                        self.workspace.artifacts(),
                        value=None,
                        label=f"Artifact {number + 1}",
                        elem_id=f"artifact-{number}",
                        scale=3,
                        min_width=180,
                    )
                )
                strengths.append(
                    gr.Slider(-1, 2, value=1, step=0.05, label="Strength", scale=2, min_width=140)
                )
            if number:
                artifacts[number - 1].input(lambda: gr.Row(visible=True), None, row, **QUICK)
        return artifacts, strengths

    def _references(self) -> tuple[gr.File, gr.State]:
        """Pictures of a subject, for artifacts that look at some; kept in the workspace, where recipes find them."""
        with gr.Accordion("Pictures of a subject, for artifacts that look at some", open=False):
            shown = gr.File(
                file_count="multiple",
                file_types=["image"],
                label="Reference pictures",
                height=120,
                elem_id="references",
            )
        kept = gr.State([])

        def keep(files: Sequence[str] | None) -> list[str]:
            if not files:
                return []
            folder = store(files, self.workspace, self.page.settings, "references")
            return sorted(str(path) for path in folder.iterdir())

        shown.upload(shown_error(keep), shown, kept, queue=False)
        shown.delete(shown_error(keep), shown, kept, queue=False)
        shown.clear(lambda: [], None, kept, **QUICK)
        return shown, kept

    def _edits(self) -> None:
        """One block for each edit in the catalog, drawn from its settings."""
        cards = [catalog.card(name) for name in catalog.names()]
        for card in (each for each in cards if each.edit):
            with gr.Accordion(f"{card.title}: {card.summary}", open=False, elem_id=f"edit-{card.name}"):
                used = gr.Checkbox(False, label=f"Use {card.title}", elem_id=f"use-{card.name}")
                leaves = list(forms.leaves(card.config, {}, f"{card.name}."))
                shown = [leaf for leaf in leaves if leaf.name.rpartition(".")[2] in _SHOWN_EDIT] or leaves
                with gr.Row():
                    boxes = [
                        forms.draw(leaf, elem_id=leaf.name.replace(".", "-"), min_width=200) for leaf in shown
                    ]
                self.edits.append((card.name, shown, [used, *boxes]))
