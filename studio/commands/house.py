"""`studio models list|inspect`, `studio adapters`, `studio doctor`: what is here."""

import dataclasses

from studio import assets
from studio.console import Console
from studio.errors import RunFailed, StudioError, unknown
from studio.flags import flags


def models(argv: list[str], console: Console) -> None:
    """The embedded models and their sizes."""
    if argv:
        raise unknown("argument", argv[0], [])
    folders = sorted(p for p in (assets.root() / "models").glob("*") if p.is_dir())
    sizes = [sum(f.stat().st_size for f in p.rglob("*") if f.is_file()) / 1e6 for p in folders]
    rows = [[p.name, round(size, 1)] for p, size in zip(folders, sizes, strict=True)]
    console.table(["embedded model", "megabytes"], rows, form=".1f")


def adapters(argv: list[str], console: Console) -> None:
    """The table of adapters, measured here and now: `studio adapters [--rounds 9]`."""
    own, rest = flags.take(argv, "rounds")
    if rest:
        raise unknown("argument", rest[0], ["--rounds N"])
    rounds = flags.number(own, "rounds", 9)
    if rounds < 1:
        raise StudioError(f"--rounds was given as {rounds}; give 1 or more.", field="rounds")
    from studio.bench.adapters import measure, table

    lines = measure(rounds)
    for key, line in lines.items():
        console.record({"event": "adapter", "adapter": key, **dataclasses.asdict(line)})
    console.print(table(lines))


def doctor(argv: list[str], console: Console) -> None:
    """What is installed, which kernels work here, as text to paste in an issue."""
    if argv:
        raise unknown("argument", argv[0], ["--json"])
    from studio.doctor import doctor as examine

    found = examine()
    console.record(found.as_dict())
    console.print(found.text())


def inspect(argv: list[str], console: Console) -> None:
    """What a file, a folder or a name is: `studio models inspect MODEL`. Exit code 1 for what cannot be loaded."""
    from studio.catalog.describe import describe
    from studio.catalog.recognize import recognize, usable

    if len(argv) != 1 or argv[0].startswith("-"):
        raise StudioError(
            "studio models inspect takes one model: a .safetensors file, a folder, a short name or a hub name.",
            field="model",
        )
    known = recognize(argv[0])
    if known.kind == "unknown" and not known.refusal:
        usable(argv[0])
    facts = describe(known)
    console.record({"event": "model", "model": argv[0], "loads": not known.refusal, **facts})
    for name, text in facts.items():
        console.print(f"{name:<9} {text}")
    if known.refusal:
        raise RunFailed(f"{argv[0]} cannot be loaded.")
