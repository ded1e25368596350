"""`studio sample`, `studio export` and `studio plan`: each one call of a use-case."""

import dataclasses
from pathlib import Path

from studio.console import Console
from studio.errors import StudioError


def sample(argv: list[str], console: Console) -> None:
    """Draw pictures: `studio sample --artifact RUN --prompt "..."`; `--recipe PICTURE.png` draws a picture again."""
    from studio.catalog import recognize
    from studio.flags import flags
    from studio.records import places, recipes
    from studio.settings import serial
    from studio.settings.sampling import SampleRequest

    own, rest = flags.take(argv, "recipe")
    values = serial.to_dict(recipes.read(Path(own["recipe"]))) if "recipe" in own else {}
    request: SampleRequest = flags.parse(SampleRequest, rest, prog="studio sample", values=values)
    request = dataclasses.replace(request, artifact=tuple(map(places.artifact, request.artifact)))
    recognize.check(request.model, request.parts)
    from studio.backend.quiet import quiet
    from studio.sampling.infer import sample as draw

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
    from studio.adapters.config import Export
    from studio.flags import flags
    from studio.records import runs
    from studio.settings import serial

    if not argv or argv[0].startswith("-"):
        raise StudioError("studio export needs a run; give its folder or its name under runs/.", field="run")
    folder, run = runs.open_run(argv[0])
    own, rest = flags.take(argv[1:], "push_to_hub")
    if rest and "export" in serial.hints(type(run.method)):
        values = serial.to_dict(run.method.export)
        settings: Export = flags.parse(Export, rest, prog="studio export RUN", values=values)
        run = dataclasses.replace(run, method=dataclasses.replace(run.method, export=settings))
    elif rest:
        raise StudioError(
            f"Run {argv[0]!r} is of a method that writes one format, its own; leave out {' '.join(rest)}.",
            field="run",
        )
    from studio.backend.quiet import quiet
    from studio.training.export import export_again

    quiet()
    for path in export_again(folder, run):
        console.print(f"exported: {path}")
        console.record({"event": "export", "path": str(path)})
    if "push_to_hub" in own:
        from studio.weights.publish import push

        console.print(f"published: {push(folder, own['push_to_hub'])}")
