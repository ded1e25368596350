"""A form is drawn from a settings class: fields, bounds, help and choices come from the class alone."""

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr
import yaml
from pydantic import TypeAdapter

from studio.errors import StudioError
from studio.settings import serial

REQUIRED = ""
_WORDS = {"lr": "learning rate", "ema": "moving average", "tf32": "TF32", "num": "number of", "snr": "SNR",
          "dora": "DoRA", "rslora": "rsLoRA", "t5": "T5", "clip": "CLIP"}  # fmt: skip
_SIDE_BY_SIDE = 10
"""Letters of choices that stand side by side; longer ones go into a list."""


@dataclass(frozen=True)
class Leaf:
    """One field of a form."""

    name: str
    """Dotted, such as method.adapter.rank; ends in .kind for a choice between settings."""
    help: str
    schema: Mapping[str, Any]
    value: Any

    @property
    def label(self) -> str:
        """What stands above the field."""
        if self.name == "name":
            return "Name of the run"
        last = self.name.removesuffix(".kind").rpartition(".")[2]
        words = " ".join(_WORDS.get(word, word) for word in last.split("_"))
        return words[:1].upper() + words[1:]

    @property
    def group(self) -> str:
        """The level of settings it belongs to."""
        return self.name.removesuffix(".kind").rpartition(".")[0]

    @property
    def is_choice(self) -> bool:
        """Whether it decides which further fields there are."""
        return self.name.endswith(".kind")

    @property
    def bounds(self) -> str:
        """The allowed range, as people write it."""
        low = self.schema.get("minimum", self.schema.get("exclusiveMinimum"))
        high = self.schema.get("maximum", self.schema.get("exclusiveMaximum"))
        if "minimum" in self.schema and "maximum" in self.schema:
            return f"{low:g} to {high:g}"
        above = ">" if "exclusiveMinimum" in self.schema else "≥"
        below = "<" if "exclusiveMaximum" in self.schema else "≤"
        pairs = [(above, low), (below, high)]
        return " ".join(f"{sign} {value:g}" for sign, value in pairs if value is not None)

    @property
    def info(self) -> str:
        """Help, with range."""
        return f"{self.help.rstrip('.')} ({self.bounds})." if self.bounds else self.help

    def beside(self, follows: Any) -> str:
        """Help, with the value that the run takes in place of the shown one, which nobody gave; None for none."""
        return self.info if follows is None else f"{self.info} Follows the others: {follows}.".strip()


@functools.cache
def _schema(cls: type, name: str) -> Mapping[str, Any]:
    schema = TypeAdapter(serial.hints(cls)[name]).json_schema()
    if "$defs" in schema:
        return {"type": "object"}
    return schema


def defaults(cls: type) -> dict[str, Any]:
    """Plain values of a class; what has no default is empty."""
    values: dict[str, Any] = {}
    for field in dataclasses.fields(cls):
        members = serial.members(serial.hints(cls)[field.name])
        if field.default is not dataclasses.MISSING:
            values[field.name] = _plain(field.default, tagged=len(members) > 1)
        elif field.default_factory is not dataclasses.MISSING:
            values[field.name] = field.default_factory()
        else:
            values[field.name] = {"kind": serial.kind(members[0])} if members else REQUIRED
    return values


def _plain(value: Any, *, tagged: bool) -> Any:
    if serial.is_config(type(value)):
        return ({"kind": serial.kind(type(value))} if tagged else {}) | serial.to_dict(value)
    return list(value) if isinstance(value, tuple) else value


def leaves(cls: type, values: Mapping[str, Any], prefix: str = "") -> Iterator[Leaf]:
    """The fields of a class, those of the chosen alternatives included."""
    usual = defaults(cls)
    for name, annotation in serial.hints(cls).items():
        members, path = serial.members(annotation), f"{prefix}{name}"
        value = values.get(name, usual[name])
        if members:
            yield from _nested(members, value, path, serial.helps(cls).get(name, ""))
        else:
            yield Leaf(path, serial.helps(cls).get(name, ""), _schema(cls, name), value)


def _nested(members: Sequence[type], value: Any, path: str, text: str) -> Iterator[Leaf]:
    value = {"kind": value} if isinstance(value, str) else dict(value)
    member = members[0]
    if len(members) > 1:
        names = [serial.kind(each) for each in members]
        chosen = value.pop("kind", names[0])
        member = members[names.index(chosen)]
        yield Leaf(f"{path}.kind", text, {"enum": names}, chosen)
    yield from leaves(member, value, f"{path}.")


def draw(leaf: Leaf, **options: Any) -> Any:
    """The component of a field; `options` go before what its class says."""
    schema, low, high = leaf.schema, leaf.schema.get("minimum"), leaf.schema.get("maximum")
    named = f"field-{leaf.name.removesuffix('.kind').replace('.', '-')}"
    shared: dict[str, Any] = {"label": leaf.label, "info": leaf.info or None, "interactive": True}
    shared |= {"elem_classes": named, "value": held(leaf)} | options
    if "enum" in schema:
        kind = gr.Radio if sum(map(len, schema["enum"])) <= _SIDE_BY_SIDE else gr.Dropdown
        return kind(schema["enum"], **shared)
    match schema.get("type"):
        case "boolean":
            return gr.Checkbox(**shared)
        case "number" if low is not None and high is not None and 0 < high - low <= 2:
            return gr.Slider(low, high, step=0.05, **shared)
        case "integer" | "number":
            return gr.Number(precision=0 if schema["type"] == "integer" else None, **shared)
        case _:
            shared = {"lines": 1, "max_lines": 6} | shared
            return gr.Textbox(**shared)


def held(leaf: Leaf) -> Any:
    """What the component of a field holds."""
    if "enum" in leaf.schema:
        return leaf.value
    match leaf.schema.get("type"):
        case "boolean":
            return bool(leaf.value)
        case "integer" | "number":
            return leaf.value if leaf.value != REQUIRED else None
        case _:
            return _text(leaf)


def _text(leaf: Leaf) -> str:
    if leaf.schema.get("type") == "string" or isinstance(leaf.value, str):
        return str(leaf.value)
    if leaf.value is None:  # Gradio would show an empty number as 0, so those that may be empty are texts
        return ""
    if _is_list_of_texts(leaf):
        return "\n".join(leaf.value)
    return yaml.safe_dump(leaf.value, default_flow_style=True).strip().removesuffix("...").strip()


def _is_list_of_texts(leaf: Leaf) -> bool:
    return leaf.schema.get("type") == "array" and leaf.schema.get("items", {}).get("type") == "string"


def parse(leaf: Leaf, given: Any) -> Any:
    """The plain value of what a component holds.

    Raises:
        StudioError: The text of a list or table cannot be read.
    """
    kind = leaf.schema.get("type")
    if kind in ("integer", "number"):
        if given is None:
            raise StudioError(
                f"{leaf.label} is empty; give a number {leaf.bounds}.".replace(" .", "."), field=leaf.name
            )
        return int(given) if kind == "integer" and float(given).is_integer() else given
    if kind == "string":
        return given or ""
    if kind == "boolean" or "enum" in leaf.schema:
        return given
    if _is_list_of_texts(leaf):
        return [line.strip() for line in str(given or "").splitlines() if line.strip()]
    try:
        return yaml.safe_load(str(given or "null"))
    except yaml.YAMLError:
        raise StudioError(
            f"{leaf.label} was given as {given!r}; write a list as [1, 2] or a table as {{name: value}}.",
            field=leaf.name,
        ) from None


def collect(fields: Sequence[Leaf], given: Sequence[Any]) -> dict[str, Any]:
    """What a form holds, as nested plain values."""
    return serial.nest({leaf.name: parse(leaf, value) for leaf, value in zip(fields, given, strict=True)})
