"""Numbers of a robustness evaluation: errors under corruption, calibration, signs of masked gradients.

Everything here is arithmetic on logits and accuracies. Axes: `n` pictures, `k` classes. Errors and accuracies are
fractions unless the name says percent.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F
from torchmetrics.functional.classification import multiclass_calibration_error

BINS = 15
"""Bins of the calibration error (Guo et al. 2017, arXiv 1706.04599)."""
CHANCE_MARGIN = 0.05
"""How far above zero the accuracy may stay at the largest radius before gradients are called masked."""


@dataclass(frozen=True)
class Calibration:
    """How far confidence is from accuracy."""

    ece: float
    """Expected calibration error, 15 bins of equal width. Positive for finite n even if perfectly calibrated."""
    adaptive_ece: float
    """The same with 15 bins of equal count."""
    nll: float
    brier: float

    def as_dict(self) -> dict[str, float]:
        """By name."""
        return asdict(self)


def accuracy(logits: Float[Tensor, "n k"], labels: Int[Tensor, " n"]) -> float:
    """Share of pictures whose largest logit is the label's."""
    return float((logits.argmax(1) == labels).float().mean())


def calibration(logits: Float[Tensor, "n k"], labels: Int[Tensor, " n"]) -> Calibration:
    """Calibration of softmax confidences."""
    logits = logits.double()
    probabilities = logits.softmax(1)
    ece = multiclass_calibration_error(
        probabilities, labels, num_classes=logits.shape[1], n_bins=BINS, norm="l1"
    )
    wanted = F.one_hot(labels, logits.shape[1])
    return Calibration(
        ece=float(ece),
        adaptive_ece=_adaptive(probabilities, labels),
        nll=float(F.cross_entropy(logits, labels)),
        brier=float((probabilities - wanted).square().sum(1).mean()),
    )


def _adaptive(probabilities: Float[Tensor, "n k"], labels: Int[Tensor, " n"]) -> float:
    confidence, chosen = probabilities.max(1)
    order = confidence.argsort()
    right = (chosen == labels).double()
    parts = zip(confidence[order].chunk(BINS), right[order].chunk(BINS), strict=True)
    return float(sum(abs(c.mean() - r.mean()) * len(c) for c, r in parts) / len(labels))


def temperature(logits: Float[Tensor, "n k"], labels: Int[Tensor, " n"]) -> float:
    """The temperature that minimizes the NLL on validation logits (Guo et al. 2017, sec. 4.2)."""
    log_t = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([log_t], lr=0.5, max_iter=60, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(logits.double().cpu() / log_t.exp(), labels.cpu())
        loss.backward()
        return loss

    optimizer.step(closure)  # pyright: ignore[reportArgumentType]  # torch's stub wants a float
    return float(log_t.detach().exp())


def restricted(logits: Float[Tensor, "n k"], classes: Sequence[int]) -> Float[Tensor, "n k"]:
    """Logits with all other classes out of the running: evaluation on a data set with a part of the classes."""
    allowed = torch.zeros(logits.shape[1], dtype=torch.bool, device=logits.device)
    allowed[list(classes)] = True
    return logits.masked_fill(~allowed, -torch.inf)


def mce(errors: Mapping[str, Sequence[float]], baseline: Mapping[str, float]) -> float:
    """Mean corruption error, mCE, in percent: mean over the corruptions of the summed error divided by the baseline's (1903.12261, sec. 4).

    Args:
        errors: For each corruption the errors at its severities, as fractions.
        baseline: For each corruption the baseline's mean error over the severities, in percent.
    """
    return 100 * _mean([_mean(values) / (baseline[name] / 100) for name, values in errors.items()])


def relative_mce(
    errors: Mapping[str, Sequence[float]], clean: float, baseline: Mapping[str, float], baseline_clean: float
) -> float:
    """Relative mCE in percent: the same with the clean errors taken off (fraction, and percent for the baseline)."""
    parts = [
        (_mean(values) - clean) / ((baseline[name] - baseline_clean) / 100) for name, values in errors.items()
    ]
    return 100 * _mean(parts)


def mean_corruption_error(errors: Mapping[str, Sequence[float]]) -> float:
    """Mean error in percent over corruptions and severities. Not mCE: no baseline divides it."""
    return 100 * _mean([_mean(values) for values in errors.values()])


def retained(errors: Mapping[str, Sequence[float]], clean: float) -> float:
    """Mean corrupted accuracy as a part of the clean accuracy (`clean` is the clean error)."""
    return (1 - mean_corruption_error(errors) / 100) / max(1 - clean, 1e-12)


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Accuracies on the same `n` pictures that tell whether gradients are masked."""

    n: int
    clean: float
    fgsm: float
    pgd: float
    pgd_restarted: float
    black_box: float
    large_radius: float
    """PGD accuracy at a radius where nothing can be told apart (64/255, or l2 of the same length)."""
    strongest: float
    """Accuracy under the suite, or under PGD where no suite ran."""
    rises: float
    """Share of steps of a PGD path along which the loss rises."""


def masking_signs(found: Evidence) -> list[str]:
    """What speaks for masked gradients, one sentence each; none for an honest evaluation.

    After Athalye, Carlini, Wagner 2018 (arXiv 1802.00420) and Carlini et al. 2019 (arXiv 1902.06705).
    """
    slack = 1 / found.n + 1e-9
    signs: list[str] = []
    if found.large_radius > CHANCE_MARGIN:
        signs.append(
            f"accuracy is {found.large_radius:.1%} at a radius that hides every picture; it should be near 0"
        )
    if found.black_box < min(found.pgd, found.strongest) - slack:
        signs.append(
            f"a black-box attack ({found.black_box:.1%}) beats the white-box ones ({min(found.pgd, found.strongest):.1%})"
        )
    if found.pgd > found.fgsm + slack:
        signs.append(f"20 steps ({found.pgd:.1%}) do less harm than one ({found.fgsm:.1%})")
    if found.pgd - found.pgd_restarted > 0.1:
        signs.append(
            f"restarts help much ({found.pgd:.1%} to {found.pgd_restarted:.1%}): the loss surface is rugged"
        )
    if found.rises < 0.5:
        signs.append(f"the loss rises along only {found.rises:.0%} of the steps of an attack")
    if found.fgsm > found.clean + slack:
        signs.append(f"FGSM ({found.fgsm:.1%}) gives more right answers than no attack ({found.clean:.1%})")
    return signs


def order_signs(standing: Mapping[str, float], n: int) -> list[str]:
    """Attacks that do less harm than a weaker one on the same `n` pictures at the same radius: accuracies by attack."""
    slack = 1 / n + 1e-9
    return [
        f"{stronger} ({standing[stronger]:.1%}) does less harm than {weaker} ({standing[weaker]:.1%})"
        for weaker, stronger in (("fgsm", "pgd"), ("pgd", "autoattack"))
        if {weaker, stronger} <= set(standing) and standing[stronger] > standing[weaker] + slack
    ]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
