"""What the Sample page's fields ask for, as a checked request."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from studio.catalog import drawing as numbers
from studio.catalog import methods, recognize
from studio.errors import StudioError
from studio.sampling import grid, reference_check
from studio.settings import serial
from studio.settings.sampling import SampleRequest
from ui import forms
from ui.forms import Leaf
from ui.guard import check_request
from ui.workspace import Workspace

FIELDS: Mapping[str, Leaf] = {leaf.name: leaf for leaf in forms.leaves(SampleRequest, {"num_images": 4})}
"""Every field of a request."""
PLAIN = ("prompt", "negative", "num_images", "seed", "steps", "guidance", "scheduler", "width", "height")
"""The fields that stand on the page as they are, in the order in which `build` reads them."""
NUM_ARTIFACTS = 3
MAX_OPEN = 40
"""Requests that may wait at once, over all visitors."""
Edits = list[tuple[str, list[Leaf], list[Any]]]
"""Each edit's name, its drawn fields, and their components after the one that switches it on."""


def build(workspace: Workspace, given: Sequence[Any], edits: Edits) -> dict[str, Any]:
    """The request as plain values, checked.

    Raises:
        StudioError: Names what cannot be drawn.
    """
    plain, (model, *rest) = given[: len(PLAIN)], given[len(PLAIN) :]
    artifacts, strengths = rest[:NUM_ARTIFACTS], rest[NUM_ARTIFACTS : 2 * NUM_ARTIFACTS]
    references, *edited = rest[2 * NUM_ARTIFACTS :]
    pairs = [(a, s) for a, s in zip(artifacts, strengths, strict=True) if a]
    values = forms.collect([FIELDS[name] for name in PLAIN], plain)
    values |= {
        "model": str(model).strip(),
        "artifact": [workspace.weights(artifact) for artifact, _ in pairs],
        "strength": [strength for _, strength in pairs],
        "reference": [str(workspace.inside(path, "reference")) for path in references],
        "edits": _edits_of(edited, edits),
        "output": str(workspace.samples),
        "grid": False,
    }
    if not values["prompt"]:
        raise StudioError("There is no prompt; write what to draw.", field="prompt")
    check_request(values)
    _check_model(workspace, values["model"])
    request = serial.from_dict(SampleRequest, values)
    if len([job for job in workspace.jobs.queue() if job.kind in ("sample", "grid")]) >= MAX_OPEN:
        raise StudioError(f"{MAX_OPEN} requests wait already; try again when some are done.")
    return serial.to_dict(request)


def _check_model(workspace: Workspace, model: str) -> None:
    workspace.check({"model": model}, {})
    recognize.check(model)


def own_numbers(workspace: Workspace, model: str) -> dict[str, str]:
    """What is drawn with where nothing is given, by field: as a model's card has it; nothing where no model is named.

    Args:
        workspace: Where it has to lie.
        model: As it was typed; what cannot be used is refused when it is drawn with.
    """
    try:
        _check_model(workspace, model)
    except StudioError:
        return {}
    known = recognize.recognize(model) if model else None
    if known is None or (known.card is None and not known.small):
        return {}
    published = known.variant if known.kind == "published" else None  # what else lies there may be smaller
    side = dict.fromkeys(("width", "height"), f"{published.size}") if published else {}
    steps, guidance = numbers.steps_of(0, known.variant), numbers.guidance_of(None, known.variant)
    return {"steps": f"{steps}", "guidance": f"{guidance:g}", **side}


def drawing(workspace: Workspace, given: Sequence[Any], edits: Edits) -> dict[str, Any]:
    """A request whose reference pictures are there, can be read, and are looked at.

    Raises:
        StudioError: Names what cannot be drawn.
    """
    values = build(workspace, given, edits)
    request = serial.from_dict(SampleRequest, values)
    reference_check.check(request)
    reference_check.read(request.reference)
    return values


def _edits_of(given: Sequence[Any], edits: Edits) -> list[str]:
    found, rest = [], list(given)
    for name, leaves, boxes in edits:
        used, *values = rest[: len(boxes)]
        rest = rest[len(boxes) :]
        if used:
            settings = forms.collect(leaves, values)[name]
            serial.from_dict(methods.card(name).config, settings, where=name)
            found.append(json.dumps({"kind": name, **settings}))
    return found


def compare(
    workspace: Workspace, request: dict[str, Any], sides: Sequence[tuple[str, str]]
) -> dict[str, Any]:
    """The grid of a request along two axes, each given by its name and its values; every value is checked.

    Raises:
        StudioError: Names the side at fault.
    """
    payload: dict[str, Any] = {"request": request}
    for side, (axis, text) in zip("xy", sides, strict=True):
        values = _values(workspace, axis, text, f"values-{side}") if axis else []
        payload[side] = {"axis": axis or "", "values": values}
    base = serial.from_dict(SampleRequest, request)
    x, y = _axes(payload)
    for side, axis in (("x", x), ("y", y)):
        try:
            for value in axis.values:
                check_request(serial.to_dict(grid.changed(base, axis.name, value)))
        except StudioError as error:
            raise StudioError(str(error), field=f"values-{side}") from None
        _check_effect(axis.name, base, y.name if side == "x" else x.name, side)
    reference_check.read(base.reference)
    for value in x.values:
        reference_check.check(grid.changed(grid.changed(base, x.name, value), y.name, y.values[0]))
    return payload


def _axes(payload: dict[str, Any]) -> tuple[grid.Axis, grid.Axis]:
    try:
        return grid.axes(payload)
    except StudioError as error:
        raise StudioError(str(error), field="axis-y" if error.field == "y" else "values-x") from None


def _check_effect(axis: str, base: SampleRequest, other: str, side: str) -> None:
    """Refuse an axis along which all pictures would be the same."""
    if axis == "edit strength" and not base.edits:
        raise StudioError(
            "No edit is switched on, so its strength changes nothing; use one.", field=f"axis-{side}"
        )
    if axis in ("strength", "checkpoint") and not base.artifact and other != "artifact":
        raise StudioError(
            f"No artifact is chosen, so {axis} changes nothing; choose one.", field=f"axis-{side}"
        )


def _values(workspace: Workspace, axis: str, text: str, field: str) -> list[str]:
    found = text.splitlines() if axis == "prompt" else text.replace("\n", ",").split(",")
    found = [value.strip() for value in found if value.strip()]
    if not found:
        raise StudioError(f"The axis {axis!r} has no values; write some, such as 0, 0.5, 1.", field=field)
    return [workspace.weights(value) for value in found] if axis == "artifact" else found
