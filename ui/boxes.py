"""The fields of the Train page's form as components: laid out in groups, and marked where they are wrong."""

from collections.abc import Sequence
from typing import Any

import gradio as gr

from studio.errors import StudioError
from ui import drafts, forms
from ui.forms import Leaf


def draw(fields: Sequence[Leaf], level: str) -> list[Any]:
    """The components of the form, in the order of the fields."""
    made: dict[str, Any] = {}
    if level == "simple":
        with gr.Row():
            for leaf in fields:
                made[leaf.name] = forms.draw(leaf, elem_id=leaf.name.replace(".", "-"), min_width=220)
        return [made[leaf.name] for leaf in fields]
    for top, title in drafts.GROUPS.items():
        own = [leaf for leaf in fields if (leaf.name.split(".")[0] if "." in leaf.name else "") == top]
        with gr.Accordion(title, open=top in ("", "method")):
            _grid(own, made)
    return [made[leaf.name] for leaf in fields]


def _grid(fields: Sequence[Leaf], made: dict[str, Any]) -> None:
    groups = dict.fromkeys(leaf.group for leaf in fields)
    for group in groups:
        if "." in group:
            gr.Markdown(f"### {group.partition('.')[2].replace('.', ' · ').replace('_', ' ').capitalize()}")
        with gr.Row():
            for leaf in (each for each in fields if each.group == group):
                made[leaf.name] = forms.draw(leaf, elem_id=leaf.name.replace(".", "-"), min_width=240)


def triggers(boxes: Sequence[Any], fields: Sequence[Leaf]) -> list[Any]:
    """When to look at the form: a text once it is left, all else at once; a choice redraws the form anyhow."""
    plain = [box for leaf, box in zip(fields, boxes, strict=True) if not leaf.is_choice]
    texts = [box for box in plain if isinstance(box, gr.Textbox)]
    left = [trigger for box in texts for trigger in (box.blur, box.submit)]
    return [*left, *(box.change for box in plain if box not in texts)]


def at_fault(error: StudioError | None, fields: Sequence[Leaf]) -> str:
    """The field that an error is about, as the form knows it."""
    if error is None or not error.field:
        return ""
    names = [leaf.name.removesuffix(".kind") for leaf in fields]
    return next((name for name in (error.field, f"method.{error.field}") if name in names), "")


def mark(leaf: Leaf, message: str, now: str, before: str) -> Any:
    """The field at fault says what is wrong in place of its help."""
    name = leaf.name.removesuffix(".kind")
    if name == now:
        return gr.update(info=message, elem_classes="bad")
    return gr.update(info=leaf.info or None, elem_classes=[]) if name == before else gr.skip()
