"""`studio weights inspect|convert|resize|merge|extract|compare`: files of adapters, looked into and written anew."""

from pathlib import Path
from typing import Any

from studio.console import Console
from studio.errors import StudioError, unknown
from studio.flags import flags

DIALECTS = ("kohya", "comfy", "diffusers")
PRECISIONS = ("", "fp32", "fp16", "bf16")


def inspect(argv: list[str], console: Console) -> None:
    """What a file is."""
    own, files = _given(argv, "model", files=1)
    from studio.weights.inspect import facts
    from studio.weights.structure import opened

    found = facts(opened(files[0], own.get("model", "")))
    console.record({"event": "weights", "file": str(files[0]), **found})
    for name, text in found.items():
        console.print(f"{name:<9} {text}")


def convert(argv: list[str], console: Console) -> None:
    """The same adapter in another dialect."""
    own, files = _given(argv, "to", "format", "precision", "model", files=1)
    from studio.weights.structure import opened

    first = opened(files[0], own.get("model", ""))
    _write(console, own, first, first.reading.updates, {}, "exact")


def resize(argv: list[str], console: Console) -> None:
    """A LoRA of another rank."""
    own, files = _given(argv, "to", "format", "precision", "model", "rank", "keep", files=1)
    from studio.weights.rewrite import listed, resized
    from studio.weights.structure import opened

    rank, keep = flags.number(own, "rank", 0), flags.number(own, "keep", 0.0)
    if rank < 1 and not 0 < keep <= 1:
        raise StudioError(
            "Give --rank 1 or more, or --keep with a share in (0, 1], such as 0.95.", field="rank"
        )
    first = opened(files[0], own.get("model", ""))
    found, shares = resized(first.reading.updates, _weights(own, first), rank=max(rank, 0), keep=keep)
    _write(console, own, first, found, shares, listed(shares))


def merge(argv: list[str], console: Console) -> None:
    """Several adapters as one LoRA, each with a strength: FILE:0.7."""
    own, files = _given(argv, "to", "format", "precision", "model", "rank", files=0)
    from studio.weights.rewrite import listed, merged
    from studio.weights.structure import opened

    rank = flags.number(own, "rank", 0)
    pairs = [_strength(str(file)) for file in files]
    if len(pairs) < 2:
        raise StudioError(
            "studio weights merge takes two files or more, each with a strength if it is not 1: a.safetensors:0.7."
        )
    first = opened(pairs[0][0], own.get("model", ""))
    others = [opened(path, own.get("model", "")) for path, _ in pairs[1:]]
    for one in others:
        if one.structure.card.name != first.structure.card.name:
            raise StudioError(
                f"{first.path} is for {first.structure.title} and {one.path} for {one.structure.title}; merge those of one model."
            )
    parts = [(one.reading.updates, s) for one, (_, s) in zip([first, *others], pairs, strict=True)]
    found, shares = merged(parts, _weights(own, first), rank)
    _write(console, own, first, found, shares, listed(shares))


def extract(argv: list[str], console: Console) -> None:
    """The difference of two models as a LoRA."""
    own, files = _given(argv, "to", "format", "precision", "rank", files=2)
    rank = flags.number(own, "rank", 16)
    if rank < 1:
        raise StudioError(f"--rank was given as {rank}; give 1 or more.", field="rank")
    from studio.weights.extract import extracted
    from studio.weights.rewrite import listed, save

    target, path, precision = _target(own)
    structure, found, shares = extracted(str(files[0]), str(files[1]), rank)
    number = save(found, structure, target, path, header={}, precision=precision)
    _tell(console, path, target, number, listed(shares), shares)


def compare(argv: list[str], console: Console) -> None:
    """How two adapters differ. Exit code 0 whatever they do: the numbers are the answer."""
    own, files = _given(argv, "model", files=2)
    from studio.weights.rewrite import apart
    from studio.weights.structure import opened

    first, second = (opened(file, own.get("model", "")) for file in files)
    if first.structure.card.name != second.structure.card.name:
        raise StudioError(
            f"{files[0]} is for {first.structure.title} and {files[1]} for {second.structure.title}; compare those of one model."
        )
    found = apart(first, second)
    console.record({"event": "compare", **found})
    for line in (f"{first.path}: {first.line}", f"{second.path}: {second.line}"):
        console.print(line)
    for name, value in found.items():
        console.print(f"{name}: {value:.3g}")


def _given(argv: list[str], *names: str, files: int) -> tuple[dict[str, str], list[Path]]:
    """Flags, and the files; `files` of them, or any number."""
    own, rest = flags.take(argv, *names)
    if odd := [one for one in rest if one.startswith("--")]:
        raise unknown("argument", odd[0], [f"--{name}" for name in names])
    if files and len(rest) != files:
        raise StudioError(
            f"{files} file{'s' * (files > 1)} must be given, and {len(rest)} were; studio weights --help says how."
        )
    return own, [Path(one) for one in rest]


def _target(own: dict[str, str]) -> tuple[Any, Path, str]:
    target, precision = own.get("format", "kohya"), own.get("precision", "")
    if target not in DIALECTS:
        raise unknown("format", target, DIALECTS, field="format")
    if precision not in PRECISIONS:
        raise unknown("precision", precision, PRECISIONS[1:], field="precision")
    if "to" not in own:
        raise StudioError("--to FILE.safetensors says where it is written.", field="to")
    return target, Path(own["to"]), precision


def _weights(own: dict[str, str], first: Any) -> Any:
    """The model with its weights, where it was named and something depends on them."""
    from studio.weights.structure import of_model

    magnitudes = any(
        one.magnitude is not None for layers in first.reading.updates.values() for one in layers.values()
    )
    return of_model(own["model"], weights=True) if magnitudes and "model" in own else first.structure


def _write(console: Console, own: dict[str, str], first: Any, found: Any, shares: Any, words: str) -> None:
    from studio.weights.rewrite import save

    target, path, precision = _target(own)
    structure = _weights(own, first)
    number = save(found, structure, target, path, header=first.header, precision=precision)
    console.print(f"{first.path}: {first.line}")
    _tell(console, path, target, number, words, shares)


def _tell(console: Console, path: Path, target: str, number: int, words: str, shares: Any) -> None:
    least = min(shares.values()) if shares else 1.0
    console.record(
        {"event": "written", "file": str(path), "format": target, "tensors": number, "least_kept": least}
    )
    console.print(f"{path}: {target}, {number} tensors, {words}")


def _strength(given: str) -> tuple[Path, float]:
    """A file and its strength."""
    path, colon, number = given.rpartition(":")
    if not colon or Path(given).exists():
        return Path(given), 1.0
    try:
        return Path(path), float(number)
    except ValueError:
        raise StudioError(f"{given} is no file, and {number!r} no strength; write FILE:0.7.") from None
