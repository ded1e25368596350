"""Flags to settings: presets, files and flags put together, by tyro. No torch.

Values are taken from, in rising order: the class, the method's preset for the model, `--config FILE`, flags.
A union of settings is chosen by name: `--adapter lora`.
"""

import contextlib
import dataclasses
import inspect
import io
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import tyro

from studio.catalog import methods
from studio.catalog.cards import Card
from studio.catalog.presets import Start, starting
from studio.catalog.run import Run
from studio.errors import StudioError, unknown
from studio.flags import names
from studio.settings import serial

T = TypeVar("T", int, float)


def parse(cls: type, argv: Sequence[str], *, prog: str, values: Mapping[str, Any] | None = None) -> Any:
    """An instance of a settings class from flags, over the given plain values.

    Raises:
        StudioError: A flag does not exist, or a value is out of bounds.
    """
    chosen, rest = _choices(cls, list(argv))
    filled = serial.merge(dict(values or {}), serial.nest({k: {"kind": v} for k, v in chosen.items()}))
    made = _outline(cls, filled)
    names.refuse_unknown(made, rest, prog=prog)
    names.refuse_missing(made, rest, prog=prog, absent=tyro.MISSING)
    try:
        found, loose = _read(cls, made, rest, prog)
    except StudioError as error:
        raise error.inside(_where(made, error.settings)) from None
    if loose:
        raise StudioError(
            f"{prog} does not know what {loose[0]!r} is for; write a flag before it: {prog} --help"
        )
    return found


def _read(cls: type, made: Any, argv: Sequence[str], prog: str) -> tuple[Any, list[str]]:
    """What flags say, and what is left over; what tyro refuses as one sentence."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(
                tyro.conf.AvoidSubcommands[cls],
                default=made,
                args=argv,
                prog=prog,
                description=_description(made),
                return_unknown_args=True,
            )
    except SystemExit as ended:
        if not ended.code:  # help was asked for
            raise
        raise StudioError(_sentence(said.getvalue(), prog)) from None


def _sentence(boxed: str, prog: str) -> str:
    """The first words in tyro's box."""
    inside = [line.strip("│ ") for line in boxed.splitlines() if line.startswith("│")]
    said = " ".join(itertools.takewhile(lambda line: not line.startswith("─"), inside)).rstrip(".")
    said = said.replace("Error parsing ", "", 1).replace(
        "invalid literal for int() with base 10", "no whole number"
    )
    advice = (
        " A value that begins with a dash is written behind an equals sign: --flag='-value'."
        if "Missing" in said
        else ""
    )
    return f"{prog}: {said[:1].lower()}{said[1:]}.{advice} All flags: {prog} --help"


def _description(made: Any) -> str:
    """What the settings are for, and the choices that decide which further flags there are."""
    lines = [inspect.getdoc(type(made)) or ""]
    found = list(names.choices(type(made)))
    if found:
        lines.append("Choices, each with flags of its own, which --help after it shows:")
    for path, allowed in found:
        kinds = ", ".join(serial.kind(member) for member in allowed)
        lines.append(f"  {names.flag(path)}  {kinds}")
    return "\n".join(lines)


def _where(made: Any, settings: type | None, prefix: str = "") -> str:
    """Dotted name of the level at which a class of settings stands; empty for the top, and for the method's own."""
    for field in dataclasses.fields(made):
        value = getattr(made, field.name)
        if serial.is_config(type(value)):
            inner = prefix if field.name == "method" else f"{prefix}{field.name}."
            if type(value) is settings:
                return inner.rstrip(".")
            if found := _where(value, settings, inner):
                return found
    return ""


def parse_run(method: str, argv: Sequence[str], *, prog: str = "") -> tuple[Run, str]:
    """A run of a method from flags; also the name of the preset that was taken."""
    run, start = started(method, argv, prog=prog)
    return run, start.preset


def started(method: str, argv: Sequence[str], *, prog: str = "") -> tuple[Run, Start]:
    """A run of a method from flags, and what it started from: preset and settings file."""
    card = methods.card(method)
    own, rest = take(argv, "config", "preset")
    file = serial.read_file(Path(own["config"])) if "config" in own else {}
    _check_file(file, card)
    cls = run_class(card)
    chosen: dict[str, Any] = {
        path.removeprefix("method."): kind for path, kind in _choices(cls, rest)[0].items()
    }
    if variant := _named(rest, "parts.variant"):
        chosen["parts"] = {"variant": variant}
    start = starting(card, file=file, model=_named(rest, "model"), preset=own.get("preset", ""), own=chosen)
    flat = parse(cls, rest, prog=prog or f"studio train {methods.reference(card)}", values=start.values)
    if flat.loop.epochs and len(names.given(("loop.steps", "loop.epochs"), rest)) == 2:
        raise StudioError("--loop.steps and --loop.epochs are two lengths; give one.", field="loop.epochs")
    run = Run(**{f.name: getattr(flat, f.name) for f in dataclasses.fields(flat)})
    values = serial.flatten(run.to_dict())
    followed = card.follow(run, names.given(values, rest) | serial.flatten(file).keys())
    return followed, start.followed(values, serial.flatten(followed.to_dict()))


def change_run(run: Run, argv: Sequence[str]) -> Run:
    """A run with what flags change; a choice made anew has the defaults of what is chosen."""
    card = methods.card_of(run.method)
    values = serial.to_dict(run) | {"method": serial.to_dict(run.method)}
    flat = parse(run_class(card), argv, prog="studio train --resume RUN", values=values)
    return Run(**{f.name: getattr(flat, f.name) for f in dataclasses.fields(flat)})


def take(argv: Sequence[str], *names: str) -> tuple[dict[str, str], list[str]]:
    """Flags with one value that are handled apart, and the other arguments."""
    found: dict[str, str] = {}
    rest: list[str] = []
    items = iter(argv)
    for item in items:
        flag, equals, value = item.partition("=")
        name = flag.removeprefix("--").replace("-", "_")
        if not flag.startswith("--") or name not in names:
            rest.append(item)
            continue
        given = value if equals else next(items, None)
        if given is None:
            raise StudioError(f"{flag} needs a value after it.", field=name)
        found[name] = given
    return found, rest


def number(own: Mapping[str, str], name: str, default: T) -> T:
    """A number among the flags that were taken apart."""
    try:
        return type(default)(own.get(name, default))
    except ValueError:
        raise StudioError(
            f"{names.flag(name)} was given as {own[name]!r}; give a number.",
            field=name,
        ) from None


def _check_file(file: Mapping[str, Any], card: Card) -> None:
    for name in sorted(set(file) & set(serial.hints(card.config)) - set(serial.hints(Run))):
        raise StudioError(
            f"{name} is a setting of the method and stands under it in a settings file: `method: {{{name}: ...}}`.",
            field=name,
        )
    method = file.get("method", {})
    kind = method.get("kind", "") if isinstance(method, Mapping) else ""
    if kind and methods.card(kind) is not card:
        raise StudioError(
            f"The settings file is for {kind!r}, the command for {card.name!r}; use one of them for both."
        )


def _named(argv: Sequence[str], flag: str) -> str:
    """What flags say of the model, which decides the preset before everything else is read; empty if nothing."""
    named, _ = take([a for a in argv if not a.startswith(("-h", "--help"))], flag)
    return named.get(flag, "")


def run_class(card: Card) -> type:
    """`Run` with the method's own settings at the top level of the flags."""
    types_, texts = serial.hints(Run), serial.helps(Run)
    method = Annotated[card.config, tyro.conf.arg(name="", prefix_name=False)]
    told = {n: Annotated[t, tyro.conf.arg(help=texts[n])] if texts[n] else t for n, t in types_.items()}
    fields = [(f.name, (told | {"method": method})[f.name], _default(f)) for f in dataclasses.fields(Run)]
    made = dataclasses.make_dataclass(
        "Run", [(n, t, d) if d is not dataclasses.MISSING else (n, t) for n, t, d in fields], kw_only=True
    )
    presets = f"--preset takes one of: {', '.join(card.presets)}, none. " if card.presets else ""
    files = f"{presets}--config FILE reads settings from YAML or JSON; flags go first."
    made.__doc__ = f"{card.title}: {card.summary}.\n{files}"
    return made


def _default(field: Any) -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    if field.default_factory is not dataclasses.MISSING:
        return dataclasses.field(default_factory=field.default_factory)
    return dataclasses.MISSING


def _choices(cls: type, argv: list[str]) -> tuple[dict[str, str], list[str]]:
    """Names of chosen union members by dotted path, and the arguments without them."""
    unions = dict(names.choices(cls))
    flags = {names.flag(path).replace("-", "_").replace(".", "_"): path for path in unions}
    found: dict[str, str] = {}
    rest: list[str] = []
    items = iter(argv)
    for item in items:
        flag, equals, value = item.partition("=")
        path = flags.get(flag.replace("-", "_").replace(".", "_")) if flag.startswith("--") else None
        if path is None:
            rest.append(item)
            continue
        found[path] = value if equals else next(items, "")
        if not found[path]:
            kinds = ", ".join(serial.kind(member) for member in unions[path])
            raise StudioError(f"{flag} needs a name after it; choose one of: {kinds}.", field=path)
    return found, rest


def _outline(cls: type, values: Mapping[str, Any], where: str = "") -> Any:
    """An instance that tyro takes as defaults: unchecked, with required fields left open."""
    types_ = serial.hints(cls)
    for name in values:
        if name not in types_ and name != "kind":
            raise unknown(
                "setting", f"{where}{name}", [f"{where}{n}" for n in types_], field=f"{where}{name}"
            )
    made = object.__new__(cls)
    for field in dataclasses.fields(cls):
        value = values.get(field.name, dataclasses.MISSING)
        allowed = serial.members(types_[field.name])
        if allowed:
            path, plain = f"{where}{field.name}", {} if value is dataclasses.MISSING else value
            member, given = serial.over_default(cls, field.name, allowed, plain, path.removeprefix("method."))
            value = _outline(member, given, f"{path}.") if member else value
        elif value is dataclasses.MISSING:
            value = _plain_default(field)
        object.__setattr__(made, field.name, tuple(value) if isinstance(value, list) else value)
    return made


def _plain_default(field: Any) -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    return tyro.MISSING if field.default_factory is dataclasses.MISSING else field.default_factory()
