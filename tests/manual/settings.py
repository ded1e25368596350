"""Settings classes as tables: the flag, what it takes, the default, and the attribute's docstring."""

import dataclasses
import inspect
import re
import textwrap
import types
import typing
from collections.abc import Callable, Iterator
from typing import Any, Literal

from pydantic import JsonValue

from studio.settings import serial

Named = Callable[[str], str]
"""From the dotted name of a setting to how a person writes it: a flag, or a key of an edit."""
HEAD = "| setting | takes | default | what it is |\n| --- | --- | --- | --- |"
WORDS: dict[Any, str] = {
    JsonValue: "anything that JSON has",
    bool: "on, off",
    int: "whole number",
    float: "number",
    str: "text",
    Any: "anything",
}


def section(cls: type, named: Named, default: Any = None) -> Iterator[str]:
    """All settings of a class: its own as a table, then a heading for each group and each choice."""
    groups = {name: hint for name, hint in serial.hints(cls).items() if serial.members(hint)}
    own = [_row(cls, name, "", named, default) for name in serial.hints(cls) if name not in groups]
    if own:
        yield "\n".join([HEAD, *own])
    for name, hint in groups.items():
        yield f"### `{named(name)}`"
        yield escaped(_help(cls, name) or _summary(serial.members(hint)[0]))
        yield from _group(cls, name, "", named, default)


def _group(cls: type, name: str, prefix: str, named: Named, default: Any) -> Iterator[str]:
    """What lies under one setting that holds settings: a table, or a table of choices and what each has."""
    members = serial.members(serial.hints(cls)[name])
    chosen = _default(cls, name, default)
    if len(members) == 1:
        yield from _inside(members[0], f"{prefix}{name}.", named, chosen)
        return
    flag = named(prefix + name)
    kinds = {serial.kind(member): member for member in members}
    mark = {kind: " (default)" if type(chosen) is member else "" for kind, member in kinds.items()}
    rows = [f"| `{kind}`{mark[kind]} | {escaped(_summary(member))} |" for kind, member in kinds.items()]
    yield "\n".join([f"| `{flag}` takes | what it is |", "| --- | --- |", *rows])
    for kind, member in kinds.items():
        if serial.hints(member):
            given = chosen if type(chosen) is member else None
            inner = "\n\n".join(_inside(member, f"{prefix}{name}.", named, given))
            opened = "+" if given is not None else ""
            yield f'???{opened} note "`{flag} {kind}`{mark[kind]}"\n\n' + textwrap.indent(inner, "    ")


def _inside(cls: type, prefix: str, named: Named, default: Any) -> Iterator[str]:
    """The settings under a prefix; those of single groups in the same table, choices after it."""
    rows = list(_flat(cls, prefix, named, default))
    if rows:
        yield "\n".join([HEAD, *rows])
    for name, hint in serial.hints(cls).items():
        members = serial.members(hint)
        if len(members) > 1:
            yield f"**`{named(prefix + name)}`**: {escaped(_help(cls, name))}"
            yield from _group(cls, name, prefix, named, default)
        elif members:
            yield from _choices(members[0], f"{prefix}{name}.", named, _default(cls, name, default))


def _choices(cls: type, prefix: str, named: Named, default: Any) -> Iterator[str]:
    """The choices inside of a single group, whose plain settings stand in the table above."""
    for part in _inside(cls, prefix, named, default):
        if not part.startswith(HEAD):
            yield part


def _flat(cls: type, prefix: str, named: Named, default: Any) -> Iterator[str]:
    for name, hint in serial.hints(cls).items():
        members = serial.members(hint)
        if not members:
            yield _row(cls, name, prefix, named, default)
        elif len(members) == 1:
            yield from _flat(members[0], f"{prefix}{name}.", named, _default(cls, name, default))


def _row(cls: type, name: str, prefix: str, named: Named, default: Any) -> str:
    value = shown(_default(cls, name, default))
    takes = spoken(serial.hints(cls)[name])
    return f"| `{named(prefix + name)}` | {takes} | {value} | {escaped(_help(cls, name))} |"


def _default(cls: type, name: str, instance: Any) -> Any:
    """The value of a setting where nothing is said; `dataclasses.MISSING` where something must be."""
    if instance is not None:
        return getattr(instance, name)
    field = next(f for f in dataclasses.fields(cls) if f.name == name)
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def is_required(cls: type, name: str) -> bool:
    """Whether a setting has no default."""
    return _default(cls, name, None) is dataclasses.MISSING


def shown(value: Any) -> str:
    """A value as a person types it."""
    if value is dataclasses.MISSING:
        return "**required**"
    if value is None or value == "" or (isinstance(value, (tuple, list, dict)) and not value):
        return "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, (tuple, list)):
        return " ".join(map(shown, value))
    if isinstance(value, dict):
        return ", ".join(f"{key} {shown(item)}" for key, item in value.items())
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def spoken(hint: Any) -> str:
    """What a setting takes, in words: `number, 0 to 1`."""
    origin, inside = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return ", ".join([spoken(inside[0]), *_bounds(inside[1:])])
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in inside)
    if origin in (typing.Union, types.UnionType):
        return " or ".join("none" if part is type(None) else spoken(part) for part in inside)
    if origin is tuple:
        parts = [spoken(part) for part in inside if part is not Ellipsis]
        return (
            f"any of {parts[0]}"
            if "`" in parts[0]
            else f"{'several' if Ellipsis in inside else len(parts)}: {parts[0]}"
        )
    return f"names with {spoken(inside[1])}" if origin is dict else WORDS[hint]


def _bounds(marks: tuple[Any, ...]) -> Iterator[str]:
    limits: dict[str, Any] = {}
    for rule in (rule for mark in marks for rule in getattr(mark, "metadata", [])):
        limits |= {
            name: getattr(rule, name)
            for name in ("ge", "gt", "le", "lt", "multiple_of")
            if hasattr(rule, name)
        }
    if {"ge", "le"} <= limits.keys():
        yield f"{limits.pop('ge')} to {limits.pop('le')}"
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<", "multiple_of": "multiple of"}
    yield from (
        f"{sign} {limits[name]}".replace("<", "&lt;") for name, sign in signs.items() if name in limits
    )


def _help(cls: type, name: str) -> str:
    return serial.helps(cls)[name]


def _summary(cls: type) -> str:
    return (inspect.getdoc(cls) or "").partition("\n\n")[0].replace("\n", " ")


def escaped(text: str) -> str:
    """Plain text as Markdown, safe in a table; what stands between backticks stays."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(
        p if p.startswith("`") else re.sub(r"([*_|\[\]\\])", r"\\\1", p).replace("<", "&lt;") for p in parts
    )
