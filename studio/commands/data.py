"""`studio data check|caption|sets ...`. Torch is imported once the flags are right."""

from typing import Any

from studio.console import Console
from studio.errors import StudioError, unknown
from studio.flags import flags


def check(argv: list[str], console: Console) -> None:
    """What can be trained on, and what cannot and why."""
    where, rest = _place(argv, "check", "a folder of pictures or a file of conversations")
    if where.endswith((".json", ".jsonl")):
        _check_conversations(where, rest, console)
    else:
        _check_pictures(where, rest, console)


def caption(argv: list[str], console: Console) -> None:
    """Captions for a folder of pictures."""
    _write_captions(*_place(argv, "caption", "a folder of pictures"), console)


def _place(argv: list[str], verb: str, what: str) -> tuple[str, list[str]]:
    """The folder or file that a command begins with, and its flags; where help is asked for, none is needed."""
    if argv and not argv[0].startswith("-"):
        return argv[0], argv[1:]
    if {"-h", "--help"} & set(argv):
        return "DIR", ["--help"]
    raise StudioError(
        f"studio data {verb} needs {what} first; studio data {verb} --help explains it.", field="data"
    )


def sets(argv: list[str], console: Console) -> None:
    """Same-subject sets, drawn, taken apart and filtered."""
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
    from studio.data.conversations import check, read

    own, rest = flags.take(argv, "pictures", "model", "max_pixels", "template")
    if rest:
        raise unknown(
            "argument", rest[0], ["--pictures DIR", "--model M", "--max-pixels N", "--template FILE"]
        )
    if model := own.get("model", ""):
        from studio.backend.quiet import quiet
        from studio.chat.lengths import learned

        quiet()
        found, _ = read(file, own.get("pictures", ""))
        for line in learned(found, model, flags.number(own, "max_pixels", 0), own.get("template", "")):
            console.print(line)
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
