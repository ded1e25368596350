"""Every measure of one matcher, by name. Accuracies are fractions. Axes: `n` pictures, `m` texts, `d` features."""

from collections.abc import Sequence

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from studio.matching.data import halves
from studio.matching.examined import Examined, Named, Paired, Swaps, as_sentences
from studio.matching.matcher import Matcher, features_of
from studio.metrics.matching import harmonic, recall, swapped
from studio.metrics.robustness import accuracy, calibration

RANKS = (1, 5, 10)
PROBE_STEPS, PROBE_RATE = 200, 1e-2
"""Of the few-shot head: AdamW on all shots at once, from the names' features."""
TEXTS = 256


@torch.no_grad()
def measure(matcher: Matcher, examined: Examined, order: int) -> dict[str, float]:
    """All measures; those that a matcher cannot be asked for are left out."""
    named = examined.held_out
    features = features_of(matcher, named.images)
    found = _names(matcher, named, features, order)
    for where, shift in examined.shifts.items():
        if matcher.knows(shift.classes):
            seen = features_of(matcher, shift.images)
            found[f"accuracy on {where}"] = accuracy(_answers(matcher, seen, shift.classes), shift.labels)
    for count, shots in examined.shots.items():
        if matcher.knows(shots.classes):
            found[f"linear head, {count} shots"] = _few_shot(matcher, shots, named, features)
    found |= _retrieval(matcher, examined.pairs)
    if examined.swaps:
        found |= _composition(matcher, examined.swaps)
    return found


@torch.no_grad()
def on_the_line(matcher: Matcher, examined: Examined, order: int) -> dict[str, float]:
    """What is measured at each point between two models: accuracies on the names alone."""
    found = _names(matcher, examined.held_out, features_of(matcher, examined.held_out.images), order)
    return {name: found[name] for name in ("accuracy", "base", "new", "HM") if name in found}


def _names(matcher: Matcher, named: Named, features: Tensor, order: int) -> dict[str, float]:
    """Accuracy and calibration among all names; base pictures among base names, new ones among new names."""
    found: dict[str, float] = {}
    if matcher.knows(named.classes):
        logits = _answers(matcher, features, named.classes)
        found = {"accuracy": accuracy(logits, named.labels), "ECE": calibration(logits, named.labels).ece}
    parts = dict(zip(("base", "new"), halves(named.classes, order), strict=True))
    for part, names in parts.items():
        if not names or not matcher.knows(names):
            continue
        chosen, labels = _only(named, names)
        if len(labels):
            found[part] = accuracy(_answers(matcher, features[chosen], names), labels)
    if "base" in found and "new" in found:
        found["HM"] = harmonic(found["base"], found["new"])
    return found


def _only(named: Named, names: Sequence[str]) -> tuple[Tensor, Int[Tensor, " n"]]:
    """Rows of the pictures of some classes, and their labels among these."""
    place = torch.tensor([names.index(name) if name in names else -1 for name in named.classes])
    labels = place[named.labels]
    rows = (labels >= 0).nonzero()[:, 0]
    return rows, labels[rows]


def _answers(matcher: Matcher, features: Float[Tensor, "n d"], names: Sequence[str]) -> Float[Tensor, "n m"]:
    parts = [
        matcher.logits(part.to(matcher.model.device), names).float().cpu() for part in features.split(TEXTS)
    ]
    return torch.cat(parts)


def _few_shot(matcher: Matcher, shots: Named, named: Named, features: Tensor) -> float:
    """Accuracy of a linear head on a few training pictures a class, started from the names."""
    seen = features_of(matcher, shots.images)
    scale = matcher.model.logit_scale.cpu()
    start = matcher.names(shots.classes).float().cpu()
    head = fit_head(seen, shots.labels, start, scale)
    rows, labels = _only(named, shots.classes)
    return accuracy(scale * features[rows] @ head.T, labels)


@torch.enable_grad()
def fit_head(
    features: Float[Tensor, "n d"], labels: Int[Tensor, " n"], start: Float[Tensor, "m d"], scale: Tensor
) -> Float[Tensor, "m d"]:
    """A linear head by cross-entropy."""
    head = nn.Parameter(start.clone())
    optimizer = torch.optim.AdamW([head], lr=PROBE_RATE)
    for _ in range(PROBE_STEPS):
        optimizer.zero_grad()
        F.cross_entropy(scale * features @ head.T, labels).backward()
        optimizer.step()
    return head.detach()


def _texts(matcher: Matcher, texts: Sequence[str]) -> Float[Tensor, "m d"]:
    parts = [texts[start : start + TEXTS] for start in range(0, len(texts), TEXTS)]
    return torch.cat([matcher.texts(part).float().cpu() for part in parts])


def _retrieval(matcher: Matcher, pairs: Paired) -> dict[str, float]:
    """R@k of the right caption for a picture, and of a right picture for a caption."""
    captions = as_sentences(pairs.captions)
    scores = features_of(matcher, pairs.images) @ _texts(matcher, captions).T
    matches = torch.tensor([[own == other for other in captions] for own in pairs.captions])
    found = {f"text R@{k}": value for k, value in recall(scores, matches, RANKS).items()}
    return found | {f"picture R@{k}": value for k, value in recall(scores.T, matches.T, RANKS).items()}


def _composition(matcher: Matcher, swaps: Swaps) -> dict[str, float]:
    """Whether each of two pictures that differ in an attribute finds its caption, and the other way round."""
    pictures = rearrange(features_of(matcher, swaps.images), "(p i) d -> p i d", i=2)
    captions = rearrange(_texts(matcher, swaps.captions), "(p j) d -> p j d", j=2)
    found = swapped(torch.einsum("pid,pjd->pij", pictures, captions))
    return {f"swapped attribute, {name}": value for name, value in found.items()}
