"""`studio eval subject|dreambench ...` and `studio reproduce METHOD ...`. Torch is imported once the flags are right."""

import dataclasses
from collections.abc import Sequence

from studio.console import Console
from studio.data import layouts
from studio.flags import flags
from studio.metrics import table
from studio.metrics.config import DreamBenchEval, SubjectEval
from studio.metrics.table import Row
from studio.records import places


def subject(argv: list[str], console: Console) -> None:
    """How well an artifact draws its subject."""
    request: SubjectEval = flags.parse(SubjectEval, argv, prog="studio eval subject")
    found_at = places.artifact(request.artifact)
    layouts.find(request.data)
    request = dataclasses.replace(request, artifact=found_at)
    from studio.backend.quiet import quiet
    from studio.evaluation.subject import evaluate as run
    from studio.reports.report import summary

    quiet()
    found = run(request)
    _shown(found.rows, console)
    console.print("↑ higher is better, ↓ lower is better; ± standard error over pictures")
    console.print(summary(found.rows))
    console.print(f"report: {found.report}")
    console.record({"event": "evaluation", "report": str(found.report), "scores": str(found.scores)})


def dreambench(argv: list[str], console: Console) -> None:
    """The DreamBench protocol over a run folder a subject."""
    request: DreamBenchEval = flags.parse(DreamBenchEval, argv, prog="studio eval dreambench")
    from studio.backend.quiet import quiet
    from studio.evaluation.dreambench import evaluate as run

    quiet()
    found = run(request)
    _shown(found.rows, console)
    console.print(f"{len(found.subjects)} subjects; report: {found.folder / 'report.html'}")


def _shown(rows: Sequence[Row], console: Console) -> None:
    """The table of scores: estimates with their errors for people, each number on its own for machines."""
    if not console.json:
        console.table(table.HEADER, table.lines(rows))
    for name, row in table.to_dict(rows).items():
        console.record({"event": "score", "score": name, **row})


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
