"""Our attack against torchattacks: speed at the same steps, and robust accuracy: `python -m studio.bench.attacks`.

PGD from a random start on the same classifier, pictures, radius and step. Rounds are paired and count the process's
own seconds on all its threads, the order changing from round to round; the speed is the median. In the speed both walk
all steps with all pictures; in the accuracy ours may stop where a picture is misclassified, as an evaluation does.

torchattacks pins an old `requests`, so that it is no dependency: `uv pip install --no-deps torchattacks`. Without it the
line says so, and ours is measured alone.
"""

import importlib
import importlib.util
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import torch
import tyro
from pydantic import Field
from torch import Tensor, nn

from studio.attacks.ball import Ball
from studio.attacks.build import Attacker
from studio.attacks.config import Attacks
from studio.attacks.gradient import Walk, ascend, cross_entropy
from studio.backend.core import Backend
from studio.backend.rng import Rng
from studio.data.config import Labelled
from studio.models.vit import load_classifier
from studio.settings.config import Positive, config
from studio.settings.run import Hardware
from studio.vision.robustness import Examined, held_out

OTHER = "torchattacks"
ABSENT = f"{OTHER} is not installed, so nothing is compared: uv pip install --no-deps {OTHER}"
STRIDE = 4
"""Steps are a quarter of the radius, as in PGD-20 at 8/255 with 2/255."""
Attack = Callable[[Tensor, Tensor], Tensor]


@config
class AttackBench:
    """PGD here and in torchattacks."""

    model: str = "studio-tiny-vit"
    """Classifier that both attack."""
    data: Labelled = Labelled(train="stickers")
    """Labelled pictures; the held-out ones are attacked."""
    num_images: Positive = 200
    """Pictures of the comparison of accuracies: half a point is one of 200."""
    batch: Positive = 20
    """Pictures at a time; the speed is measured on one such batch."""
    eps: Annotated[float, Field(gt=0, le=255)] = 1.0
    """Radius in 255ths (linf); about half of the embedded model's pictures stand at 1."""
    steps: Positive = 20
    """Gradient steps."""
    rounds: Annotated[int, Field(ge=3)] = 5
    """Paired rounds."""
    hardware: Hardware = Hardware(precision="fp32", threads=1)


@dataclass(frozen=True)
class Compared:
    """Pictures a second, and accuracy under attack; the other's are none where it is not installed."""

    ours: float
    other: float | None
    our_accuracy: float
    other_accuracy: float | None

    def as_dict(self) -> dict[str, Any]:
        """The numbers by name, or the sentence that says what is missing."""
        found: dict[str, Any] = {
            "studio": round(self.ours, 2),
            "studio accuracy percent": round(100 * self.our_accuracy, 2),
        }
        if self.other is None or self.other_accuracy is None:
            return found | {OTHER: ABSENT}
        return found | {
            OTHER: round(self.other, 2),
            "ratio": round(self.ours / self.other, 2),
            f"{OTHER} accuracy percent": round(100 * self.other_accuracy, 2),
            "difference in points": round(100 * abs(self.our_accuracy - self.other_accuracy), 2),
        }


def others(model: nn.Module, settings: AttackBench) -> Attack | None:
    """The other library's PGD on the same model; none if it is not installed."""
    if importlib.util.find_spec(OTHER) is None:
        return None
    library = importlib.import_module(OTHER)  # by name: no dependency of ours
    eps = settings.eps / 255
    return library.PGD(model, eps=eps, alpha=eps / STRIDE, steps=settings.steps, random_start=True)


def compare(settings: AttackBench) -> Compared:
    """Speed and accuracy of both."""
    backend = Backend(settings.hardware)
    model = backend.place(load_classifier(settings.model)).float()
    shown = held_out(model, settings.data, settings.num_images, settings.batch, backend.device)
    ball = Ball("linf", settings.eps / 255)
    walk = Walk(settings.steps, ball.radius / STRIDE, cross_entropy)

    def walked(images: Tensor, labels: Tensor) -> Tensor:
        uniform = Rng.single(0, 0, len(images), images.device).uniform(*images.shape)
        return ascend(model, images, labels, ball, start=ball.start(images, uniform), walk=walk)

    other = others(model, settings)
    attacker = Attacker(model, Attacks(steps=settings.steps), seed=0)
    speeds = _speeds({"ours": walked, **({"other": other} if other else {})}, shown, settings.rounds)
    return Compared(
        speeds["ours"],
        speeds.get("other"),
        _stands(model, lambda x, y: attacker("pgd", x, y, settings.eps), shown),
        _stands(model, other, shown) if other else None,
    )


def _speeds(attacks: dict[str, Attack], shown: Examined, rounds: int) -> dict[str, float]:
    """Median pictures a second of each on the first batch; the first round warms up."""
    _, images, labels = next(shown.batches())
    found: dict[str, list[float]] = {name: [] for name in attacks}
    for index in range(rounds + 1):
        for name in sorted(attacks, reverse=index % 2 == 1):
            start = time.process_time()
            attacks[name](images, labels)
            found[name].append(len(images) / (time.process_time() - start))
    return {name: statistics.median(values[1:]) for name, values in found.items()}


def _stands(model: nn.Module, attack: Attack, shown: Examined) -> float:
    """Share of pictures that are told right under an attack."""
    right = 0
    for _, images, labels in shown.batches():
        moved = attack(images, labels)
        with torch.no_grad():
            right += int((model(moved).argmax(1) == labels).sum())
    return right / len(shown)


def main() -> None:
    """Compare, and write one line of JSON to stdout."""
    settings = tyro.cli(AttackBench)
    found = compare(settings).as_dict()
    about = {"name": f"PGD-{settings.steps}", "unit": "images/s", "model": settings.model}
    sys.stdout.write(json.dumps({**about, **found}) + "\n")


if __name__ == "__main__":
    main()
