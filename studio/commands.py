"""The commands beside `train`: thin, each collects flags and calls one use-case."""

from studio.console import Console
from studio.errors import StudioError, unknown


def runs(argv: list[str], console: Console) -> None:
    """List runs, show one, or verify that resuming is exact."""
    from studio import runs as folders

    match argv:
        case [] | ["list"]:
            found = folders.list_runs()
            console.table(["run", "status"], [[f.path.name, f.status()] for f in found])
            if not found:
                console.print("No runs yet; start one with: studio train dreambooth --data DIR")
        case ["show", name]:
            _show(name, console)
        case ["verify-resume", name, *rest]:
            _verify(name, rest, console)
        case [verb, *_]:
            raise unknown("runs command", verb, ["list", "show RUN", "verify-resume RUN"])


def _show(name: str, console: Console) -> None:
    import yaml

    from studio import runs as folders

    folder, run = folders.open_run(name)
    console.print(f"{folder.path}: {folder.status()}")
    console.print(yaml.safe_dump(folders.dump(run), sort_keys=False))
    for event in folder.read_events():
        console.record(event)
        if event["event"] not in ("step", "start"):
            console.print(str({k: v for k, v in event.items() if k != "time"}))


def _verify(name: str, argv: list[str], console: Console) -> None:
    from studio import flags
    from studio import runs as folders
    from studio.verify import verify_resume

    own, _ = flags.take(argv, "steps", "at")
    _, run = folders.open_run(name)
    steps, at = int(own.get("steps", 6)), int(own.get("at", 3))
    if not 0 < at < steps:
        raise StudioError(f"--at {at} must lie between 1 and --steps {steps} - 1; choose such a step.", field="at")
    differing = verify_resume(run, steps=steps, at=at)
    if differing:
        raise StudioError(
            f"Resuming is not exact: {len(differing)} tensors differ after {steps} steps, such as {differing[0]}."
        )
    console.print(f"exact: {steps} steps straight equal {at} + resume + {steps - at}, bit for bit.")
