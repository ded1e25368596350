"""The fields of the Train page's form as components, laid out in groups."""

from collections.abc import Sequence
from typing import Any

import gradio as gr

from ui import drafts, forms
from ui.forms import Leaf


def draw(fields: Sequence[Leaf], level: str) -> list[Any]:
    """The components of the form, in the order of the fields."""
    made: dict[str, Any] = {}
    if level == "simple":
        _row(fields, made)
    else:
        for top, title in drafts.GROUPS.items():
            with gr.Accordion(title, open=top in ("", "method")):
                _grid([leaf for leaf in fields if leaf.name.rpartition(".")[0].split(".")[0] == top], made)
    return [made[leaf.name] for leaf in fields]


def _grid(fields: Sequence[Leaf], made: dict[str, Any]) -> None:
    for group in dict.fromkeys(leaf.group for leaf in fields):
        if "." in group:
            title = group.partition(".")[2].replace(".", " · ").replace("_", " ").capitalize()
            gr.HTML(f'<h3 class="part">{title}</h3>')
        _row([leaf for leaf in fields if leaf.group == group], made)


def _row(fields: Sequence[Leaf], made: dict[str, Any]) -> None:
    with gr.Row(elem_classes="fields"):
        for leaf in fields:
            made[leaf.name] = forms.draw(leaf, elem_id=leaf.name.replace(".", "-"), min_width=200)


def triggers(boxes: Sequence[Any], fields: Sequence[Leaf]) -> list[Any]:
    """When to look at the form: a text once it is left, all else at once; a choice redraws the form anyhow."""
    plain = [box for leaf, box in zip(fields, boxes, strict=True) if not leaf.is_choice]
    texts = [box for box in plain if isinstance(box, gr.Textbox)]
    left = [trigger for box in texts for trigger in (box.blur, box.submit)]
    return [*left, *(box.change for box in plain if box not in texts)]
