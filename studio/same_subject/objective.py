"""The two terms of prior preservation (DreamBooth, arXiv 2208.12242, eq. 2), on any family.

    E[ w_t ||x^(alpha_t x + sigma_t eps, c) - x||^2 ]        and the same of the class: x_pr, c_pr, eps', t'

Noise and time are independent in the two halves, which the network sees as one batch; each is reduced to its own mean.
With `OnlinePrior` the class half is the subject's noised latents, and its target what the base model says of them for
the class.
"""

import dataclasses
from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from studio.adapters.strength import detached
from studio.backend.rng import Rng
from studio.contracts.batch import Batch
from studio.models.denoising import Noised, Prompts, add_noise, errors, latents_of
from studio.same_subject.config import OnlinePrior
from studio.same_subject.subject import Subject


def subject_and_prior(
    subject: Subject, batch: Batch, rng: Rng, *, embed: Prompts, trained: Mapping[str, nn.Module]
) -> dict[str, Float[Tensor, ""]]:
    """Mean error of the subject half, `loss_instance`, and of the class half, `loss_prior`, where there is one.

    Args:
        subject: What is learned.
        batch: Of `subject.source()`.
        rng: Of this part of the batch.
        embed: Embeds captions, with the gradient of what trains of the text.
        trained: Modules that train, by component: `OnlinePrior` asks them as they were before.
    """
    family, settings = subject.family, subject.settings.denoising
    own = add_noise(
        family, latents_of(family, batch, rng, kind=subject.settings.images.latents), rng, settings
    )
    prior = _class_half(subject, batch, own, rng, trained)
    both = own if prior is None else own.cat(prior)
    captions = [*batch["captions"], *[subject.class_prompt] * (len(both) - len(own))]
    prediction = family.predict(both.x_t, both.t, embed(captions, _sizes(batch, len(both))))
    found = errors(family, prediction[: len(own)], own, settings, batch.get("loss_mask"))
    means = {"loss_instance": found.mean()}
    if prior is not None:
        means["loss_prior"] = errors(family, prediction[len(own) :], prior, settings).mean()
    return means


def _sizes(batch: Batch, rows: int) -> Int[Tensor, "b 6"] | None:
    """Sizes of the subject's pictures, then of the class's; of the same ones again where the class has none of its own."""
    own = batch.get("sizes")
    if own is None or rows == len(own):
        return own
    return torch.cat([own, batch.get("prior_sizes", own)])


def _class_half(
    subject: Subject, batch: Batch, own: Noised, rng: Rng, trained: Mapping[str, nn.Module]
) -> Noised | None:
    """Noised class pictures, or the subject's with another target; None for plain finetuning."""
    family, settings = subject.family, subject.settings
    if "prior_captions" in batch:
        latents = latents_of(family, batch, rng, "prior_", kind=settings.images.latents)
        return add_noise(family, latents, rng, settings.denoising)
    if not isinstance(settings.prior, OnlinePrior) or not settings.prior_weight:
        return None
    with torch.no_grad(), detached(trained):
        cond = family.with_sizes(family.embed([subject.class_prompt] * len(own)), batch.get("sizes"))
        target = family.predict(own.x_t, own.t, cond)
    return dataclasses.replace(own, target=target)
