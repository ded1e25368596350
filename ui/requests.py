"""What the Sample page's fields ask for, as a checked request."""

import json
from collections.abc import Sequence
from typing import Any

from studio import catalog, serial
from studio.errors import StudioError
from studio.models.config import SampleRequest
from ui import forms
from ui.forms import Leaf
from ui.guard import check_request
from ui.workspace import Workspace

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
    prompt, negative, count, seed, steps, guidance, scheduler, width, height, model = given[:10]
    weights = given[10 : 10 + 2 * NUM_ARTIFACTS]
    references, *edited = given[10 + 2 * NUM_ARTIFACTS :]
    pairs = [(a, s) for a, s in zip(weights[:NUM_ARTIFACTS], weights[NUM_ARTIFACTS:], strict=True) if a]
    values = {
        "prompt": [line.strip() for line in str(prompt).splitlines() if line.strip()],
        "negative": negative,
        "num_images": count,
        "seed": seed,
        "steps": steps,
        "guidance": guidance,
        "scheduler": scheduler or "",
        "width": width,
        "height": height,
        "model": str(model).strip(),
        "artifact": [workspace.weights(artifact) for artifact, _ in pairs],
        "strength": [strength for _, strength in pairs],
        "reference": [str(workspace.inside(path, "reference")) for path in references],
        "edits": _edits_of(edited, edits),
        "output": str(workspace.samples),
        "grid": False,
    }
    request = serial.from_dict(SampleRequest, values)
    check_request(values)
    workspace.check({"model": values["model"]}, {})
    if len([job for job in workspace.jobs.queue() if job.kind in ("sample", "grid")]) >= MAX_OPEN:
        raise StudioError(f"{MAX_OPEN} requests wait already; try again when some are done.")
    return serial.to_dict(request)


def _edits_of(given: Sequence[Any], edits: Edits) -> list[str]:
    found, rest = [], list(given)
    for name, leaves, boxes in edits:
        used, *values = rest[: len(boxes)]
        rest = rest[len(boxes) :]
        if used:
            settings = forms.collect(leaves, values)[name]
            serial.from_dict(catalog.card(name).config, settings, where=name)
            found.append(json.dumps({"kind": name, **settings}))
    return found
