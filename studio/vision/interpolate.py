"""WiSE-FT: the straight line of weights from a model before finetuning to the model after it.

    Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022, arXiv 2109.01903

    theta(alpha) = (1 - alpha) * theta_before + alpha * theta_after                                    (eq. 1)

Departure: a head that was made anew for the task has no counterpart before; it is then taken from the finetuned model.
"""

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from studio.errors import StudioError
from studio.models.vit import Classifier


@torch.no_grad()
def interpolated(before: Classifier, after: Classifier, alpha: float) -> Classifier:
    """The classifier at `alpha` on the line: 0 is before, 1 is after.

    Raises:
        StudioError: The two are not the same architecture.
    """
    result = copy.deepcopy(after)
    head = (
        after.head_parameters()
        if tuple(before.classes) != tuple(after.classes) or before.fresh_head
        else frozenset()
    )
    first, last = before.state_dict(), after.state_dict()
    odd = [
        key for key in last if key not in head and (key not in first or first[key].shape != last[key].shape)
    ]
    if odd:
        raise StudioError(
            f"{before.name!r} and {after.name!r} are not the same architecture ({odd[0]!r} differs), so there is no line "
            "between them; name the model that the finetuning started from.",
            field="before",
        )
    put_between(result, first, last, alpha, keep=head)
    return result


@torch.no_grad()
def put_between(
    result: nn.Module,
    first: Mapping[str, Tensor],
    last: Mapping[str, Tensor],
    alpha: float,
    *,
    keep: frozenset[str] = frozenset(),
) -> None:
    """Give a network the weights at `alpha` between two states; integers and what is named in `keep` stay as they are."""
    for key, value in result.state_dict().items():
        if key not in keep and value.is_floating_point():
            value.copy_(torch.lerp(first[key].to(value), last[key].to(value), alpha))
