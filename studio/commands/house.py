"""`studio models list|adapters|doctor`: what is here."""

import dataclasses

from studio import assets
from studio.console import Console
from studio.errors import StudioError, unknown
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
