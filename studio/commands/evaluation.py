"""`studio eval NAME ...` and `studio reproduce METHOD ...`. Torch is imported once the flags are right."""

import dataclasses

from studio.commands import robustness, vlm
from studio.console import Console
from studio.data import layouts
from studio.errors import StudioError, unknown
from studio.flags import flags
from studio.metrics import table
from studio.metrics.config import DreamBenchEval, SubjectEval
from studio.records import places


def evaluate(argv: list[str], console: Console) -> None:
    """Measure an artifact."""
    match argv:
        case ["subject", *rest]:
            _subject(rest, console)
        case ["dreambench", *rest]:
            _dreambench(rest, console)
        case ["robustness", *rest]:
            robustness.robustness(rest, console)
        case ["nullspace", *rest]:
            robustness.nullspace(rest, console)
        case ["vlm", *rest]:
            vlm.vlm(rest, console)
        case [verb, *_]:
            raise unknown("evaluation", verb, _NAMES)
        case _:
            raise StudioError(
                f"studio eval needs the name of an evaluation; choose one of: {', '.join(_NAMES)}."
            )


_NAMES = ("subject", "dreambench", "robustness", "nullspace", "vlm")


def _subject(argv: list[str], console: Console) -> None:
    request: SubjectEval = flags.parse(SubjectEval, argv, prog="studio eval subject")
    found_at = places.artifact(request.artifact)
    layouts.find(request.data)
    request = dataclasses.replace(request, artifact=found_at)
    from studio.backend.quiet import quiet
    from studio.evaluation.subject import evaluate as run
    from studio.reports.report import summary

    quiet()
    found = run(request)
    console.table(table.HEADER, table.lines(found.rows))
    console.print("↑ higher is better, ↓ lower is better; ± standard error over pictures")
    console.print(summary(found.rows))
    console.print(f"report: {found.report}")
    console.record({"event": "evaluation", "report": str(found.report), "scores": str(found.scores)})


def _dreambench(argv: list[str], console: Console) -> None:
    request: DreamBenchEval = flags.parse(DreamBenchEval, argv, prog="studio eval dreambench")
    from studio.backend.quiet import quiet
    from studio.evaluation.dreambench import evaluate as run

    quiet()
    found = run(request)
    console.table(table.HEADER, table.lines(found.rows))
    console.print(f"{len(found.subjects)} subjects; report: {found.folder / 'report.html'}")


def reproduce(argv: list[str], console: Console) -> None:
    """Make a method's table of evidence again."""
    from studio.evidence.reproduce import Reproduce
    from studio.evidence.reproduce import reproduce as run

    named = ["--method", argv[0], *argv[1:]] if argv and not argv[0].startswith("-") else argv
    request: Reproduce = flags.parse(Reproduce, named, prog="studio reproduce")
    from studio.backend.quiet import quiet

    quiet()
    for event in run(request):
        console.record(event)
        if event["event"] == "cell":
            told = "done" if event["fresh"] else "kept"
            console.print(f"[{event['number']}/{event['of']}] {event['cell']}: {told}")
        else:
            console.print(f"{event['cells']} cells; {', '.join(event['files'])}")
