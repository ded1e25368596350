"""The nullspace analysis: what a vision transformer cannot see, as numbers and as pictures."""

import json
import logging
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from studio.backend.core import Backend
from studio.evaluation.robustness import save_picture
from studio.models.vit import Classifier, load_classifier
from studio.records import runs
from studio.reports.robustness import write_nullspace_page
from studio.training import checkpoint
from studio.vision import nullspace, robustness
from studio.vision.config import Nullspace
from studio.vision.line import load_before
from studio.vision.nullspace import PatchNullspace

log = logging.getLogger(__name__)
_WEIGHT = "patch_embed.proj.weight"
START = "the start of the run"


@dataclass
class Analysis:
    """What the analysis found."""

    folder: Path
    values: dict[str, Any] = field(default_factory=dict)
    pictures: list[dict[str, Path]] = field(default_factory=list)

    @property
    def report(self) -> Path:
        """The HTML report."""
        return self.folder / "report.html"


def analyze(request: Nullspace) -> Analysis:
    """Measure the nullspace, disturb pictures inside of it and outside, and write report and JSON.

    Raises:
        StudioError: The model has no plain patch embedding, or sees everything.
    """
    backend = Backend(request.hardware)
    model = backend.place(load_classifier(request.model)).float()
    space = nullspace.patch_nullspace(model)
    examined = robustness.held_out(
        model, request.data, request.num_images, request.num_images, backend.device
    )
    run = Path(request.model)
    folder = Path(request.output) if request.output else (run if run.is_dir() else Path()) / "nullspace"
    found = Analysis(folder)
    folder.mkdir(parents=True, exist_ok=True)
    found.values = {
        "model": request.model,
        "seed": request.seed,
        "inputs": space.num_inputs,
        "rank": space.rank,
        "nullity": space.nullity,
        "chance": space.nullity / space.num_inputs,
        "changes": _disturb(found, request, model, space, examined.images),
        "overlap": _overlaps(request, model, space),
    }
    runs.write_text(folder / "nullspace.json", json.dumps(found.values, indent=1) + "\n")
    write_nullspace_page(found.values, found.pictures, found.report)
    return found


def _disturb(
    found: Analysis, request: Nullspace, model: Classifier, space: PatchNullspace, images: torch.Tensor
) -> dict[str, dict[str, float]]:
    """Relative changes by kind of noise; also writes the pictures."""
    generator = torch.Generator().manual_seed(request.seed)
    raw = nullspace.in_pixels(model, space.noise(images, generator).float())
    inside, noise = nullspace.fit_inside(images, raw, request.noise)
    other = torch.randn(images.shape, generator=generator).to(images)
    _, other = nullspace.fit_inside(images, other, request.noise)
    length = torch.linalg.vector_norm(noise, dim=(1, 2, 3), keepdim=True)
    other = other * length / torch.linalg.vector_norm(other, dim=(1, 2, 3), keepdim=True)
    kinds = {
        "in the nullspace": inside + noise,
        "in the nullspace, saved with 8 bits": nullspace.as_saved(inside + noise),
        "random, of equal length": inside + other,
    }
    for index in range(len(images)):
        parts = {"picture": inside[index], "noise": noise[index] + 0.5} | {
            kind: kinds[kind][index] for kind in ("in the nullspace", "random, of equal length")
        }
        names = {kind: f"{index}-{place}.png" for place, kind in enumerate(parts)}
        row = {
            kind: save_picture(value, found.folder / "pictures" / names[kind])
            for kind, value in parts.items()
        }
        found.pictures.append(row)
    return {kind: asdict(nullspace.invisibility(model, inside, changed)) for kind, changed in kinds.items()}


def _overlaps(request: Nullspace, model: Classifier, space: PatchNullspace) -> dict[str, float]:
    """Overlap of this nullspace with those of the model before and of the run's checkpoints, in their order."""
    found = {}
    if before := load_before(request.before, request.model, model.classes):
        found[START if request.before == "auto" else request.before] = space.overlap(
            nullspace.patch_nullspace(before)
        )
    layer = nullspace.projection(model)
    final = layer.weight.detach().clone()
    for step, path in runs.saved(Path(request.model) / "checkpoints").items():
        if reason := checkpoint.damage(path):
            log.warning("checkpoint %s is damaged (%s) and left out", path, reason)
            continue
        weight = _saved_weight(path)
        if weight is not None:
            layer.weight.data.copy_(weight)
            found[f"step {step}"] = space.overlap(nullspace.patch_nullspace(model))
    layer.weight.data.copy_(final)
    return found


def _saved_weight(path: Path) -> torch.Tensor | None:
    """The patch embedding that a checkpoint holds; none if it stayed frozen."""
    with safe_open(path / "weights.safetensors", "pt") as file:
        names = [name for name in file.keys() if name.endswith(_WEIGHT) and not name.startswith("teacher/")]  # noqa: SIM118  # not a dict
        return file.get_tensor(names[0]) if names else None
