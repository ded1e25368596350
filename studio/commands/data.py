"""`studio data check|caption|sets ...`. Torch is imported once the flags are right."""

from typing import Any

from studio.console import Console
from studio.errors import StudioError, unknown
from studio.flags import flags


def data(argv: list[str], console: Console) -> None:
    """Look at training data, write captions, make same-subject sets: `studio data check|caption|sets ...`."""
    match argv:
        case ["check", "-h" | "--help"]:
            _check_pictures("DIR", ["--help"], console)
        case ["caption", "-h" | "--help"]:
            _write_captions("DIR", ["--help"], console)
        case ["check", where, *rest] if where.endswith((".json", ".jsonl")):
            _check_conversations(where, rest, console)
        case ["check", where, *rest]:
            _check_pictures(where, rest, console)
        case ["caption", folder, *rest]:
            _write_captions(folder, rest, console)
        case ["sets", *rest]:
            _make_sets(rest, console)
        case _:
            raise StudioError(
                "studio data needs one of: check DIR, check FILE.json, caption DIR, sets; studio data --help explains them."
            )


def _make_sets(argv: list[str], console: Console) -> None:
    from studio.same_subject.config import MakeSets

    settings: MakeSets = flags.parse(MakeSets, argv, prog="studio data sets")
    from studio.backend.quiet import quiet
    from studio.same_subject.pipeline import make

    quiet()
    for event in make(settings):
        console.record(event)
        if event["event"] == "done":
            console.print(f"{event['sets']} sets from {event['collages']} collages: {event['folder']}")
        else:
            console.print(f"{event['set']} {event['subject']}: {event['members']} members")
            for reason in event["reasons"]:
                console.print(f"  left out: {reason}")


def _check_pictures(folder: str, argv: list[str], console: Console) -> None:
    from studio.data.config import Images

    own, rest = flags.take(argv, "size")
    settings: Images = flags.parse(Images, rest, prog="studio data check DIR")
    from studio.data.check import check

    _told(check(folder, settings, size=flags.number(own, "size", 512)), console)


def _check_conversations(file: str, argv: list[str], console: Console) -> None:
    from studio.data.conversations import check

    own, rest = flags.take(argv, "pictures")
    if rest:
        raise unknown("argument", rest[0], ["--pictures DIR"])
    _told(check(file, own.get("pictures", "")), console)


def _told(report: Any, console: Console) -> None:
    """Shows what a check found; what cannot be trained on ends the command with its verdict."""
    console.record(report.to_dict())
    *lines, verdict = report.lines()
    for line in lines:
        console.print(line)
    if not report.can_train:
        raise StudioError(verdict, field="data")
    console.print(verdict)


def _write_captions(folder: str, argv: list[str], console: Console) -> None:
    from studio.chat.config import Captioning

    settings: Captioning = flags.parse(Captioning, argv, prog="studio data caption DIR")
    from studio.backend.quiet import quiet
    from studio.chat.caption import caption

    quiet()
    for written in caption(folder, settings):
        console.print(f"{written.path}: {written.text}")
        console.record({"event": "caption", "path": str(written.path), "text": written.text})
