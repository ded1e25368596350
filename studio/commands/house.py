"""`studio models|adapters|doctor|ui`: what is here."""

import dataclasses
import os

from studio.console import Console
from studio.errors import unknown


def models(argv: list[str], console: Console) -> None:
    """List the embedded models, or train them anew: `studio models pretrain tiny-t2i|tiny-clip|...`."""
    from studio import assets

    match argv:
        case [] | ["list"]:
            folders = sorted(p for p in (assets.root() / "models").glob("*") if p.is_dir())
            sizes = [sum(f.stat().st_size for f in p.rglob("*") if f.is_file()) / 1e6 for p in folders]
            rows = [[p.name, f"{size:.1f} MB"] for p, size in zip(folders, sizes, strict=True)]
            console.table(["embedded model", "size"], rows)
        case ["pretrain", *rest]:
            from trainers.pretrain.run import command

            command(rest, console)
        case [verb, *_]:
            raise unknown("models command", verb, ["list", "pretrain"])


def adapters(argv: list[str], console: Console) -> None:
    """The table of adapters, measured here and now: `studio adapters [--rounds 9]`."""
    from studio.flags import flags

    own, rest = flags.take(argv, "rounds")
    if rest:
        raise unknown("argument", rest[0], ["--rounds N"])
    rounds = flags.number(own, "rounds", 9)
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


def ui(argv: list[str], console: Console) -> None:
    """Open the app in the browser: `studio ui [--port 7860] [--root DIR]`."""
    from studio.flags import flags
    from ui.config import App

    given = os.environ.get("STUDIO_AUTH", "")
    flags.parse(
        App, argv, prog="studio ui", values={"auth": given} if given else {}
    )  # before gradio's seconds
    from ui.app import command

    command(argv, console)
