"""`studio eval vlm ...`. Torch is imported once the flags are right."""

from studio.console import Console
from studio.flags import flags
from studio.matching.config import VlmEval


def vlm(argv: list[str], console: Console) -> None:
    """What a dual encoder knows, and what finetuning took from it."""
    request: VlmEval = flags.parse(VlmEval, argv, prog="studio eval vlm")
    from studio.backend.quiet import quiet
    from studio.evaluation.vlm import evaluate

    quiet()
    found = evaluate(request)
    console.table(["measure", "before", "after", "change"], found.rows())
    console.points(found.line)
    console.print(f"report: {found.report}")
    console.record({"event": "evaluation", "report": str(found.report), "scores": str(found.scores)})
