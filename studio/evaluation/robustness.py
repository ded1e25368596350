"""The robustness evaluation: one classifier, everything that disturbs it, and whether the numbers can be trusted.

found = evaluate(Robustness(model="runs/flowers", data=Labelled(train="flowers")))
print(found.numbers["pgd 8/255"])
"""

import hashlib
import json
import logging
import time
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from PIL import Image

from studio.attacks.build import Attacker, own_attacks
from studio.attacks.config import AttackName
from studio.attacks.constants import ALEXNET_CLEAN, ALEXNET_ERRORS, BENCHMARK, EXTRA, LARGE_FROM
from studio.backend.core import Backend
from studio.errors import StudioError
from studio.metrics import robustness as metrics
from studio.models.vit import Classifier, load_classifier, require_classes
from studio.records import runs
from studio.reports.robustness import Example, write_page
from studio.settings import serial
from studio.settings.custom import Custom
from studio.vision import robustness as measure
from studio.vision.config import Robustness
from studio.vision.line import curve, load_before

log = logging.getLogger(__name__)

NUM_EXAMPLES = 8
IMAGENET_CLASSES = 1000


@dataclass
class Found:
    """What an evaluation found. Accuracies are fractions; names that end in `percent` are not."""

    folder: Path
    facts: dict[str, str] = field(default_factory=dict)
    numbers: dict[str, float] = field(default_factory=dict)
    corruptions: dict[str, list[float]] = field(default_factory=dict)
    """Accuracy at each severity."""
    attacks: dict[str, dict[str, float]] = field(default_factory=dict)
    """Accuracy by attack and radius."""
    shifts: dict[str, float] = field(default_factory=dict)
    line: list[dict[str, float]] = field(default_factory=list)
    """The WiSE-FT curve."""
    checks: dict[str, float] = field(default_factory=dict)
    """What was looked at for masked gradients; empty if nothing was."""
    signs: list[str] = field(default_factory=list)
    """Signs of masked gradients; none is good, if they were looked for."""
    examples: list[Example] = field(default_factory=list)

    @property
    def report(self) -> Path:
        """The HTML report."""
        return self.folder / "report.html"

    @property
    def scores(self) -> Path:
        """Every number as JSON."""
        return self.folder / "robustness.json"


def evaluate(request: Robustness) -> Found:
    """Measure a classifier and write table, JSON and report.

    Raises:
        StudioError: Model and data do not fit, or something named cannot be read.
    """
    started = time.monotonic()
    own = own_attacks(request.attacks)
    backend = Backend(request.hardware)
    model = backend.place(load_classifier(request.model)).float()
    if "transfer" in request.attacks.names and not request.attacks.surrogate:
        raise StudioError(
            "The transfer attack needs a model to take gradients from; give --attacks.surrogate.",
            field="attacks.surrogate",
        )
    surrogate = _surrogate(request, model, backend)
    before = load_before(request.before, request.model, model.classes)
    examined = measure.held_out(model, request.data, request.num_images, request.batch_size, backend.device)
    found = Found(_folder(request))
    found.facts = _facts(request, model, len(examined), backend)
    _clean(found, model, examined)
    _corruptions(found, request, model, examined)
    for where in request.shifts:
        found.shifts[where], _ = measure.shifted_accuracy(model, where, request.data, examined)
    attacker = Attacker(model, request.attacks, request.seed, surrogate, own)
    _attacks(found, request, attacker, model, examined)
    if before:
        found.line = curve(request, backend.place(before).float(), model, examined)
    found.facts["seconds"] = f"{time.monotonic() - started:.0f}"
    _write(found, request)
    return found


def _surrogate(request: Robustness, model: Classifier, backend: Backend) -> Classifier | None:
    """The model that transfer takes its gradients from."""
    if not request.attacks.surrogate:
        return None
    surrogate = load_classifier(request.attacks.surrogate, model.classes)
    if model.classes:
        require_classes(surrogate, model.classes)
    return backend.place(surrogate).float()


def _clean(found: Found, model: Classifier, examined: measure.Examined) -> None:
    logits = measure.logits(model, examined)
    half = torch.arange(len(logits), device=logits.device) % 2 == 0
    found.numbers["clean accuracy"] = metrics.accuracy(logits, examined.labels)
    found.numbers |= metrics.calibration(logits, examined.labels).as_dict()
    if len(examined) >= 4:
        scale = metrics.temperature(logits[half], examined.labels[half])
        scaled = metrics.calibration(logits[~half] / scale, examined.labels[~half])
        found.numbers |= {
            "temperature (fitted on half)": scale,
            "ece after temperature (other half)": scaled.ece,
        }


def _corruptions(found: Found, request: Robustness, model: Classifier, examined: measure.Examined) -> None:
    if request.corruptions == "none":
        return
    names = BENCHMARK + (EXTRA if request.corruptions == "all" and not request.corruption_files else ())
    worst = []
    for name in names:
        found.corruptions[name] = []
        for severity in request.severities:
            if request.corruption_files:
                changed = measure.published(request.corruption_files, name, severity, examined, model)
            else:
                changed = measure.corrupted(examined, name, severity)
            logits = measure.logits(model, changed)
            found.corruptions[name].append(metrics.accuracy(logits, changed.labels))
            if name in BENCHMARK and severity == max(request.severities):
                worst.append(metrics.calibration(logits, changed.labels).ece)
        log.info("%s: %s", name, " ".join(f"{a:.3f}" for a in found.corruptions[name]))
    errors = {name: [1 - a for a in found.corruptions[name]] for name in BENCHMARK}
    clean = 1 - found.numbers["clean accuracy"]
    found.numbers["mean corruption error percent"] = metrics.mean_corruption_error(errors)
    found.numbers["accuracy retained under corruption"] = metrics.retained(errors, clean)
    found.numbers["ece at the highest severity"] = sum(worst) / len(worst)
    if model.num_classes == IMAGENET_CLASSES and len(request.severities) == 5:
        found.numbers["mCE percent"] = metrics.mce(errors, ALEXNET_ERRORS)
        found.numbers["relative mCE percent"] = metrics.relative_mce(
            errors, clean, ALEXNET_ERRORS, ALEXNET_CLEAN
        )


def _attacks(
    found: Found,
    request: Robustness,
    attacker: Attacker,
    model: Classifier,
    examined: measure.Examined,
) -> None:
    settings = request.attacks

    def run(name: str, attack: AttackName | Custom, eps: float, radius: str, title: str) -> torch.Tensor:
        """Put one attack on record; who is still told right."""
        result = measure.attacked(attacker, model, examined, attack, eps)
        found.attacks.setdefault(name, {})[radius] = found.numbers[title] = result.accuracy
        log.info("%s: %.3f", title, result.accuracy)
        if not found.examples and (fooled := (~result.right).nonzero()[:, 0].tolist()):
            found.examples = _examples(found, model, examined, result, fooled)
        return result.right

    balls: dict[str, AttackName | Custom] = {name: name for name in settings.names if name != "patch"}
    balls |= settings.own()
    for eps in settings.eps if balls else ():
        radius, standing = settings.told(eps), torch.ones_like(examined.labels, dtype=torch.bool)
        for name, attack in balls.items():
            standing &= run(name, attack, eps, radius, _title(request, name, eps))
        found.numbers[f"all attacks {radius}"] = float(standing.float().mean())
        found.signs += metrics.order_signs(
            {name: found.attacks[name][radius] for name in balls}, len(examined)
        )
    if "patch" in settings.names:
        run("patch", "patch", max(settings.eps), "any", f"patch, {settings.patch_share:.1%} of the side")
    if request.checks and (settings.names or settings.custom):
        evidence = measure.masking_evidence(model, examined, settings, request.seed, max(settings.eps))
        found.signs += metrics.masking_signs(evidence)
        found.checks = {name: float(value) for name, value in vars(evidence).items()}


def _examples(
    found: Found, model: Classifier, examined: measure.Examined, result: measure.Survivors, fooled: list[int]
) -> list[Example]:
    """Pictures that were told right and are not any more, with what the model now takes them for."""
    with torch.no_grad():
        before = model(examined.images[fooled]).argmax(1) == examined.labels[fooled]
        chosen = [index for index, right in zip(fooled, before.tolist(), strict=True) if right][:NUM_EXAMPLES]
        answers = model(result.images[chosen]).argmax(1).tolist() if chosen else []
    names = model.classes or tuple(str(index) for index in range(model.num_classes))
    made = []
    for index, answer in zip(chosen, answers, strict=True):
        change = (result.images[index] - examined.images[index]) / (
            2 * (result.images[index] - examined.images[index]).abs().max()
        ) + 0.5
        parts = {"clean": examined.images[index], "change": change, "attacked": result.images[index]}
        files = {
            kind: save_picture(value, found.folder / "examples" / f"{index}-{kind}.png")
            for kind, value in parts.items()
        }
        made.append(Example(files, names[int(examined.labels[index])], names[answer]))
    return made


def save_picture(image: torch.Tensor, path: Path) -> Path:
    """Write a picture (c h w) in [0, 1] as PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = rearrange((image.clamp(0, 1) * 255).round().to(torch.uint8).cpu(), "c h w -> h w c").numpy()
    Image.fromarray(pixels).save(path)
    return path


def _title(request: Robustness, name: str, eps: float) -> str:
    steps = f"-{request.attacks.steps}" if name in ("pgd", "pgd-margin") else ""
    return f"{name}{steps} {request.attacks.told(eps)}"


def _facts(request: Robustness, model: Classifier, count: int, backend: Backend) -> dict[str, str]:
    digest = hashlib.sha256()
    for value in model.state_dict().values():
        digest.update(value.cpu().contiguous().numpy().tobytes())
    recipe = "CIFAR-10-C" if model.size < LARGE_FROM else "ImageNet-C"
    source = "files" if request.corruption_files else f"on the fly, {recipe}'s strengths"
    return {
        "model": request.model,
        "weights": digest.hexdigest()[:16],
        "data": request.data.test or request.data.train,
        "pictures": f"{count}, {model.size} px, {model.num_classes} classes",
        "corruptions": source,
        "seed": str(request.seed),
        "libraries": ", ".join(f"{name} {version(name)}" for name in ("torch", "timm", "pyautoattack")),
        "device": backend.device.type,
    }


def _folder(request: Robustness) -> Path:
    run = Path(request.model)
    given = Path(request.output) if request.output else (run if run.is_dir() else Path()) / "robustness"
    given.mkdir(parents=True, exist_ok=True)
    return given


def _write(found: Found, request: Robustness) -> None:
    values: dict[str, Any] = {
        "request": serial.to_dict(request),
        **{name: value for name, value in vars(found).items() if name not in ("folder", "examples")},
    }
    runs.write_text(found.scores, json.dumps(values, indent=1) + "\n")
    write_page(values, found.examples, found.report)
