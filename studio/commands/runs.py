"""`studio runs list|show|report|verify-resume`: what runs have done."""

from collections.abc import Mapping
from typing import Any

from studio.console import Console
from studio.errors import RunFailed, StudioError, unknown
from studio.flags import flags
from studio.records import runs as folders


def listed(argv: list[str], console: Console) -> None:
    """Runs under a folder, newest first."""
    output, *rest = argv or ["runs"]
    _nothing_more([output] if output.startswith("-") else rest)
    found = folders.list_runs(output)
    if not found:
        console.print(
            f"No runs under {output}/; start one with: studio train dreambooth --data DIR --class-word dog"
        )
        return
    console.table(["run", "status"], [[f.path.name, f.status()] for f in found])


def show(argv: list[str], console: Console) -> None:
    """Settings and events of a run."""
    import yaml

    name, rest = _named(argv, "show")
    _nothing_more(rest)
    folder, run = folders.open_run(name)
    console.print(f"{folder.path}: {folder.status()}")
    console.print(yaml.safe_dump(run.to_dict(), sort_keys=False))
    for event in folder.read_events():
        console.record(event)
        for line in _lines(event):
            console.print(line)


def _lines(event: Mapping[str, Any]) -> list[str]:
    """What is shown of an event: of a start, its preset and what its model was taken for; of a step, nothing."""
    if event["event"] == "start":
        return [f"{key}: {event[key]}" for key in ("preset", "model") if event.get(key)]
    if event["event"] == "step":
        return []
    told = [
        f"{k} {v}" for k, v in event.items() if k not in ("time", "event", "step") and v not in ("", {}, [])
    ]
    return [f"step {event.get('step', 0)}, {event['event']}: {', '.join(told)}"]


def report(argv: list[str], console: Console) -> None:
    """The page of a run, anew."""
    name, rest = _named(argv, "report")
    _nothing_more(rest)
    from studio.reports.html import write
    from studio.reports.report import from_run

    folder, _ = folders.open_run(name)
    write(from_run(folder), folder.path / "report.html")
    console.print(str(folder.path / "report.html"))


def verify(argv: list[str], console: Console) -> None:
    """Show that resuming is exact."""
    name, given = _named(argv, "verify-resume")
    own, rest = flags.take(given, "steps", "at")
    if rest:
        raise unknown("argument", rest[0], ["--steps N", "--at N"])
    steps, at = flags.number(own, "steps", 6), flags.number(own, "at", 3)
    _, run = folders.open_run(name)
    if not 0 < at < steps:
        raise StudioError(
            f"--at {at} must lie between 1 and --steps {steps} - 1; choose such a step.", field="at"
        )
    from studio.backend.quiet import quiet
    from studio.training.verify import verify_resume

    quiet()
    differing = verify_resume(run, steps=steps, at=at)
    if differing:
        raise RunFailed(
            f"Resuming is not exact: {len(differing)} tensors differ after {steps} steps, such as {differing[0]}."
        )
    console.print(f"exact: {steps} steps straight equal {at} + resume + {steps - at}, bit for bit.")


def _named(argv: list[str], verb: str) -> tuple[str, list[str]]:
    """The run that a command begins with, and what follows."""
    if not argv or argv[0].startswith("-"):
        raise StudioError(
            f"studio runs {verb} needs a run; give its folder or its name under runs/.", field="run"
        )
    return argv[0], argv[1:]


def _nothing_more(rest: list[str]) -> None:
    if rest:
        raise unknown("argument", rest[0], [])
