"""`studio eval robustness|nullspace ...`. Torch is imported once the flags are right."""

from studio.console import Console
from studio.flags import flags
from studio.vision.config import Nullspace, Robustness


def robustness(argv: list[str], console: Console) -> None:
    """Corruptions, shifts and attacks on a classifier."""
    request: Robustness = flags.parse(Robustness, argv, prog="studio eval robustness")
    from studio.backend.quiet import quiet
    from studio.evaluation.robustness import evaluate

    quiet()
    found = evaluate(request)
    numbers = found.numbers | {f"accuracy on {name}": value for name, value in found.shifts.items()}
    console.table(["measure", "value"], numbers.items(), form=".4f")
    if found.corruptions:
        header = ["accuracy under", *(f"severity {each}" for each in request.severities)]
        rows = [[name, *values] for name, values in found.corruptions.items()]
        console.table(header, rows)
    console.points(found.line)
    if not found.checks:
        console.print("signs of masked gradients were not looked for")
    for sign in found.signs:
        console.print(f"sign of masked gradients: {sign}")
    console.print(f"report: {found.report}")
    console.record({"event": "evaluation", "report": str(found.report), "scores": str(found.scores)})


def nullspace(argv: list[str], console: Console) -> None:
    """What a vision transformer cannot see."""
    request: Nullspace = flags.parse(Nullspace, argv, prog="studio eval nullspace")
    from studio.backend.quiet import quiet
    from studio.evaluation.nullspace import analyze

    quiet()
    found = analyze(request)
    values = found.values
    console.print(
        f"{values['nullity']} of {values['inputs']} directions of a patch are invisible (rank {values['rank']})"
    )
    header = ["noise", "pixels", "embedding", "logits"]
    rows = [[kind, *each.values()] for kind, each in values["changes"].items()]
    console.table(header, rows, form=".2e")
    for name, overlap in values["overlap"].items():
        console.print(f"overlap with {name}: {overlap:.3f} (by chance {values['chance']:.3f})")
    console.print(f"report: {found.report}")
