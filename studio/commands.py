"""The commands beside `train` and `eval`: thin, each collects flags and calls one use-case."""

import dataclasses
import os
from pathlib import Path

from studio.console import Console
from studio.errors import RunFailed, StudioError, unknown


def sample(argv: list[str], console: Console) -> None:
    """Draw pictures: `studio sample --artifact RUN --prompt "..."`; `--recipe PICTURE.png` draws a picture again."""
    from studio import flags, places, recipes, serial
    from studio.models.config import SampleRequest

    own, rest = flags.take(argv, "recipe")
    values = serial.to_dict(recipes.read(Path(own["recipe"]))) if "recipe" in own else {}
    request: SampleRequest = flags.parse(SampleRequest, rest, prog="studio sample", values=values)
    request = dataclasses.replace(request, artifact=tuple(map(places.artifact, request.artifact)))
    from studio.backend.quiet import quiet
    from studio.infer import sample as draw

    quiet()
    steps = draw(request)
    try:
        while True:
            step = next(steps)
            if step.done == 1:
                console.progress(step.total, "drawing")
            console.advance(step.done)
    except StopIteration as finished:
        drawn = finished.value
    finally:
        console.close()
    for path in [*drawn.paths, *([drawn.grid] if drawn.grid else [])]:
        console.print(str(path))
        console.record({"event": "picture", "path": str(path)})


def export(argv: list[str], console: Console) -> None:
    """Write a run's weights again, in other formats: `studio export RUN --formats kohya merged`."""
    from studio import flags, runs, serial
    from studio.adapters.config import Export

    if not argv or argv[0].startswith("-"):
        raise StudioError("studio export needs a run; give its folder or its name under runs/.", field="run")
    folder, run = runs.open_run(argv[0])
    names = serial.hints(type(run.method))
    if "export" not in names:
        raise StudioError(
            f"Run {argv[0]!r} is not of a method with export formats; its files are in {folder.export}."
        )
    own, rest = flags.take(argv[1:], "push_to_hub")
    settings: Export = flags.parse(
        Export, rest, prog="studio export RUN", values=serial.to_dict(run.method.export)
    )
    from studio.backend.quiet import quiet
    from studio.train import export_again

    quiet()
    changed = dataclasses.replace(run, method=dataclasses.replace(run.method, export=settings))
    for path in export_again(folder, changed):
        console.print(f"exported: {path}")
        console.record({"event": "export", "path": str(path)})
    if "push_to_hub" in own:
        from studio.publish import push

        console.print(f"published: {push(folder, own['push_to_hub'])}")


def plan(argv: list[str], console: Console) -> None:
    """Measure one real step, sample and save: `studio plan METHOD [the flags of studio train]`."""
    from studio import flags
    from studio.checks import check

    if not argv or argv[0].startswith("-"):
        raise StudioError(
            "studio plan needs the name of a method, then the flags of studio train.", field="method"
        )
    own, rest = flags.take(argv[1:], "memory_gib")
    run, _ = flags.parse_run(argv[0], rest, prog=f"studio plan {argv[0]}")
    memory = flags.number(own, "memory_gib", 0.0)
    check(run)
    from studio.backend.quiet import quiet
    from studio.plan import plan as measure

    quiet()
    found = measure(run, memory_gib=memory)
    console.record(found.as_dict())
    for name, text in found.lines():
        console.print(f"{name:<12} {text}")
    if not found.fits:
        raise RunFailed(found.advice)


def runs(argv: list[str], console: Console) -> None:
    """List runs, show one, or verify that resuming is exact."""
    match argv:
        case [] | ["list"]:
            _list("runs", console)
        case ["list", output]:
            _list(output, console)
        case ["show", name]:
            _show(name, console)
        case ["report", name]:
            _report(name, console)
        case ["verify-resume", name, *rest]:
            _verify(name, rest, console)
        case ["show" | "report" | "verify-resume" as verb]:
            raise StudioError(f"studio runs {verb} needs a run; give its folder or its name under runs/.")
        case [verb, *_]:
            raise unknown("runs command", verb, ["list", "show", "report", "verify-resume"])


def _list(output: str, console: Console) -> None:
    from studio import runs as folders

    found = folders.list_runs(output)
    if not found:
        console.print(
            f"No runs under {output}/; start one with: studio train dreambooth --data DIR --class-word dog"
        )
        return
    console.table(["run", "status"], [[f.path.name, f.status()] for f in found])


def _show(name: str, console: Console) -> None:
    import yaml

    from studio import runs as folders

    folder, run = folders.open_run(name)
    console.print(f"{folder.path}: {folder.status()}")
    console.print(yaml.safe_dump(folders.dump(run), sort_keys=False))
    for event in folder.read_events():
        console.record(event)
        if event["event"] not in ("step", "start"):
            told = [
                f"{k} {v}"
                for k, v in event.items()
                if k not in ("time", "event", "step") and v not in ("", {}, [])
            ]
            console.print(f"step {event.get('step', 0)}, {event['event']}: {', '.join(told)}")


def _report(name: str, console: Console) -> None:
    from studio import runs as folders
    from studio.report import from_run
    from studio.report_html import write

    folder, _ = folders.open_run(name)
    write(from_run(folder), folder.path / "report.html")
    console.print(str(folder.path / "report.html"))


def _verify(name: str, argv: list[str], console: Console) -> None:
    from studio import flags
    from studio import runs as folders

    own, rest = flags.take(argv, "steps", "at")
    if rest:
        raise unknown("argument", rest[0], ["--steps N", "--at N"])
    steps, at = flags.number(own, "steps", 6), flags.number(own, "at", 3)
    _, run = folders.open_run(name)
    if not 0 < at < steps:
        raise StudioError(
            f"--at {at} must lie between 1 and --steps {steps} - 1; choose such a step.", field="at"
        )
    from studio.backend.quiet import quiet
    from studio.verify import verify_resume

    quiet()
    differing = verify_resume(run, steps=steps, at=at)
    if differing:
        raise RunFailed(
            f"Resuming is not exact: {len(differing)} tensors differ after {steps} steps, such as {differing[0]}."
        )
    console.print(f"exact: {steps} steps straight equal {at} + resume + {steps - at}, bit for bit.")


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
    from studio import flags

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
    from studio import flags
    from ui.config import App

    given = os.environ.get("STUDIO_AUTH", "")
    flags.parse(
        App, argv, prog="studio ui", values={"auth": given} if given else {}
    )  # before gradio's seconds
    from ui.app import command

    command(argv, console)
