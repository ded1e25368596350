"""Settings to and from plain dictionaries (JSON, YAML), and the differences between two settings.

A union of settings is written with its member's name under `kind`, so that it can be read back.
"""

import ast
import dataclasses
import functools
import inspect
import itertools
import textwrap
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, Union

import yaml

from studio.errors import StudioError, unknown

T = TypeVar("T")


def kind(cls: type) -> str:
    """The name of a settings class as a person types it: `SdScheduleFree` is `sd-schedule-free`."""
    return "".join(f"-{c.lower()}" if c.isupper() and i else c.lower() for i, c in enumerate(cls.__name__))


def is_config(value: object) -> bool:
    """Whether a class (not an instance) holds settings."""
    return isinstance(value, type) and dataclasses.is_dataclass(value)


def members(annotation: Any) -> tuple[type, ...]:
    """The settings classes that a field's type allows; empty if it is not a nested setting."""
    if typing.get_origin(annotation) is typing.Annotated:
        return members(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in (Union, types.UnionType):
        return tuple(m for a in typing.get_args(annotation) for m in members(a))
    return (annotation,) if is_config(annotation) else ()


def is_list(annotation: Any) -> bool:
    """Whether a field takes any number of values."""
    return typing.get_origin(annotation) is tuple and typing.get_args(annotation)[-1] is Ellipsis


def hints(cls: type) -> dict[str, Any]:
    """Field name to type, annotations resolved."""
    resolved = typing.get_type_hints(cls, include_extras=True)
    return {f.name: resolved[f.name] for f in dataclasses.fields(cls)}


@functools.cache
def helps(cls: type) -> Mapping[str, str]:
    """Attribute docstrings of a settings class and of those it builds on, by field."""
    found: dict[str, str] = {}
    for base in filter(is_config, reversed(cls.__mro__)):
        tree = ast.parse(textwrap.dedent(inspect.getsource(base)))
        body = tree.body[0].body if isinstance(tree.body[0], ast.ClassDef) else []
        for field, text in itertools.pairwise([*body, ast.Pass()]):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                found[field.target.id] = _text(text)
    return found


def _text(statement: ast.stmt) -> str:
    """What a statement says if it is a bare text, on one line."""
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
        return " ".join(str(statement.value.value).split())
    return ""


def to_dict(settings: Any) -> dict[str, Any]:
    """Settings as plain values, ready for JSON or YAML."""
    types_ = hints(type(settings))
    result: dict[str, Any] = {}
    for name, annotation in types_.items():
        value = getattr(settings, name)
        if is_config(type(value)):
            allowed = members(annotation)
            tag = {} if allowed == (type(value),) else {"kind": kind(type(value))}
            result[name] = tag | to_dict(value)
        else:
            result[name] = plain(value)
    return result


def spoken(settings: Any) -> str:
    """A choice and its values, for a sentence: "plus (queries 16, heads 12, width 768)"."""
    values = ", ".join(f"{name} {value}" for name, value in to_dict(settings).items())
    return kind(type(settings)) + (f" ({values})" if values else "")


def plain(value: Any) -> Any:
    """A setting's value, ready for JSON or YAML; a settings class takes its name along."""
    if is_config(type(value)):
        return {"kind": kind(type(value))} | to_dict(value)
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    return str(value) if isinstance(value, Path) else value


def member_named(given: str, allowed: tuple[type, ...], field: str) -> type:
    """The member of a union of settings with this name; a clear error if there is none."""
    table = {kind(m): m for m in allowed}
    if given not in table:
        raise unknown(field or "kind", given, table, field=field)
    return table[given]


def from_dict(cls: type[T], values: Mapping[str, Any], *, where: str = "") -> T:
    """Settings from plain values; an unknown key or a value out of bounds is a `StudioError`."""
    prepared = prepare(cls, values, where)
    try:
        return cls(**prepared)
    except StudioError as error:
        raise error.inside(where) from None


def prepare(cls: type, values: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    """Field values for `cls`, nested settings built; the first half of `from_dict`."""
    if not isinstance(values, Mapping):
        raise StudioError(
            f"{where or 'the settings'} was given as {str(values)[:80]!r}; give names with their values.",
            field=where,
        )
    types_ = hints(cls)
    result: dict[str, Any] = {}
    for name, value in values.items():
        path = f"{where}.{name}" if where else name
        if name not in types_:
            raise unknown("setting", path, [f"{where}.{n}" if where else n for n in types_], field=path)
        result[name] = _nested(cls, name, types_[name], value, path)
    return result


def _nested(cls: type, name: str, annotation: Any, value: Any, path: str) -> Any:
    allowed = members(annotation)
    if allowed:
        member, given = over_default(cls, name, allowed, value, path)
        return value if member is None else from_dict(member, given, where=path)
    item = members(typing.get_args(annotation)[0]) if typing.get_origin(annotation) is tuple else ()
    return tuple(_build(item, v, f"{path}[{i}]") for i, v in enumerate(value)) if item else value


def _build(allowed: tuple[type, ...], value: Any, path: str) -> Any:
    if isinstance(value, str):
        value = {"kind": value}
    if not isinstance(value, Mapping):
        return value
    inner = dict(value)
    named = inner.pop("kind", None)
    cls = allowed[0] if named is None and len(allowed) == 1 else member_named(str(named), allowed, path)
    return from_dict(cls, inner, where=path)


def over_default(
    cls: type, name: str, allowed: tuple[type, ...], value: Any, path: str
) -> tuple[type | None, dict[str, Any]]:
    """What a nested setting's plain values choose, and these values over the default's, where that is the same choice.

    Args:
        cls: The settings that it stands in.
        name: Of its field.
        allowed: What may be chosen.
        value: The name of a choice, or values with the name under `kind`; without a name the default's choice is meant.
        path: Dotted name, for messages.

    Returns:
        The class and its values; None and nothing if `value` is no plain value, such as settings built already.
    """
    if isinstance(value, str):
        value = {"kind": value}
    if not isinstance(value, Mapping):
        return None, {}
    default = default_of(cls, name)
    given = {key: item for key, item in value.items() if key != "kind"}
    if "kind" in value:
        member = member_named(str(value["kind"]), allowed, path)
    elif default is not dataclasses.MISSING:
        member = type(default)
    else:
        member = allowed[0] if len(allowed) == 1 else member_named("", allowed, path)
    return member, _laid(member, to_dict(default) if type(default) is member else {}, given)


def default_of(cls: type, name: str) -> Any:
    """The default of a field; `dataclasses.MISSING` if it has none."""
    field = next(f for f in dataclasses.fields(cls) if f.name == name)
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def _laid(cls: type, base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Values of one class over others of the same class; values that are dictionaries themselves are replaced whole."""
    types_ = hints(cls)
    nested = {name for name in over if name in types_ and members(types_[name])}
    return {
        **base,
        **{
            name: _laid_choice(members(types_[name]), base.get(name), value) if name in nested else value
            for name, value in over.items()
        },
    }


def _laid_choice(allowed: tuple[type, ...], base: Any, over: Any) -> Any:
    """One nested setting over another, where both choose the same."""
    if not isinstance(base, Mapping) or not isinstance(over, Mapping):
        return over
    tag = {"kind": base["kind"]} if "kind" in base else {}
    if over.get("kind", base.get("kind")) != base.get("kind"):
        return over
    member = member_named(base["kind"], allowed, "kind") if tag else allowed[0]
    return {**tag, **_laid(member, base, over)}


def read_file(path: Path) -> dict[str, Any]:
    """Values of a YAML or JSON file of settings."""
    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StudioError(
            f"Settings file {str(path)!r} does not exist; check --config.", field="config"
        ) from None
    except yaml.YAMLError as error:
        mark = error.problem_mark if isinstance(error, yaml.MarkedYAMLError) else None
        where = f"line {mark.line + 1}" if mark else " ".join(str(error).split())
        raise StudioError(
            f"Settings file {str(path)!r} is not valid YAML or JSON ({where}); repair it.", field="config"
        ) from None
    except (OSError, ValueError, RecursionError):
        raise StudioError(
            f"Settings file {str(path)!r} is no text file; check --config.", field="config"
        ) from None
    if not isinstance(loaded, dict):
        raise StudioError(f"Settings file {str(path)!r} must hold `name: value` lines.", field="config")
    return loaded


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values as dotted names: `{"optim.lr": 1e-4}`."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted names as nested values; the inverse of `flatten`."""
    result: dict[str, Any] = {}
    for key, value in flat.items():
        *path, last = key.split(".")
        node = result
        for part in path:
            node = node.setdefault(part, {})
        node[last] = value
    return result


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the values of `over` put in, level by level; a changed `kind` replaces the whole level."""
    if "kind" in over and over["kind"] != base.get("kind"):
        return dict(over)
    result = dict(base)
    for key, value in over.items():
        old = result.get(key)
        result[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return result


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """One line a changed setting: `optim.lr: 0.0001 -> 0.001`."""
    before, after = flatten(old), flatten(new)
    names = sorted(before.keys() | after.keys())
    return [f"{n}: {before.get(n)} -> {after.get(n)}" for n in names if before.get(n) != after.get(n)]
