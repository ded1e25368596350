"""DRaFT: Directly Fine-Tuning Diffusion Models on Differentiable Rewards.

Clark, Vicol, Swersky, Fleet, ICLR 2024, arXiv 2309.17400.

    max_theta E_{c, x_T} [ r(sample(theta, c, x_T), c) ]                                          (eq. 1)

by the gradient of the reward through the sampler, cut before its last K steps (DRaFT-K, section 3.2). DRaFT-LV adds
the gradients of the last step at copies of the finished picture that are noised again (section 3.3). ReFL (Xu et al.
2023, arXiv 2304.05977, algorithm 1) judges the clean picture that one late step points to; AlignProp (Prabhudesai et al.
2023, arXiv 2310.03739) draws the number of last steps anew each time.

Departures from the official codes (DRaFT has none): LoRA, where ReFL moves the whole U-Net; ReFL's DDPM sampler is DDIM with
noise 1, which has its variance; steps without a gradient keep no graph (AlignProp's code builds and drops one); AlignProp's
number of last steps is rounded, and may be all of them, where its code rounds it up and leaves the first step out; the number
is the same for all processes and parts of a batch; the text encoder can train in the denoiser's place (TexForce's models for
SD-Turbo); a mix of rewards is their plain weighted sum, as its running spread would depend on how a batch is split.
"""

from collections.abc import Iterator, Mapping
from typing import assert_never

import torch
from jaxtyping import Float
from torch import Tensor, nn
from typing_extensions import override

from studio.adapters.config import Adapter
from studio.backend.core import Backend
from studio.backend.rng import Rng
from studio.backend.shard import Shard
from studio.contracts.batch import Batch, Source
from studio.contracts.trainer import Loss
from studio.data.build import images
from studio.data.cache import check_cache
from studio.data.encoders import encoder_of, texts_of
from studio.diffusion.config import Denoising
from studio.models.base import Family
from studio.models.denoising import Prompts, add_noise, errors, latents_of
from studio.rl.chain import Span, draw_through, last_step
from studio.rl.orders import Draws
from studio.rl.policy import Policy
from studio.rl.trainer import RewardedTrainer, part_of
from studio.rl.watch import Drift
from trainers.draft.config import Distance, Draft, Hinge, LastSteps, Maximize, OneStep, RandomSteps


class Beside:
    """Two sources as one: what to draw, and pictures to keep to."""

    def __init__(self, draws: Draws, pictures: Source) -> None:
        self._draws, self._pictures = draws, pictures

    def __len__(self) -> int:
        return len(self._pictures)

    def stream(self, seed: int, first: int, shard: Shard) -> Iterator[Batch]:
        """Rows of both."""
        both = zip(
            self._draws.stream(seed, first, shard), self._pictures.stream(seed, first, shard), strict=False
        )
        return (drawn | shown for drawn, shown in both)


class DraftTrainer(RewardedTrainer[Draft]):
    """Back-propagation of the reward through the last sampler steps."""

    @override
    def modules(self, family: Family) -> dict[str, nn.Module]:
        return part_of(family, self.config.trains)

    @override
    def adapter(self) -> Adapter:
        return self.config.adapter

    @override
    def prepare(self, trained: Mapping[str, nn.Module], backend: Backend) -> None:
        super().prepare(trained, backend)
        self.policy = Policy(self.family, trained, self.config.sampler, setting="sampler")
        self._drift = Drift(self.family, trained, self._prompts, self.config.min_similarity)
        text, pictures = self.config.trains == "text-encoder", self.config.images
        check_cache(pictures, trains_text=text)
        self._captions = Prompts(self.family, trains=text, store=texts_of(self.family, pictures))

    @override
    def source(self) -> Source:
        draws, family = Draws(self._prompts), self.family
        if not self.config.pretrain:
            return draws
        pictures = images(self.config.images, self.config.pretrain, size=family.default_size,
                          multiple=family.size_multiple, encoder=encoder_of(family))  # fmt: skip
        return Beside(draws, pictures)

    @override
    def batches(self, data: Iterator[Batch], first: int) -> Iterator[Batch]:
        """The orders as they are, until the text encoder has moved too far."""
        for order in data:
            similarity = self._drift.similarity()
            if self.backend.any(self._drift.too_far(similarity)):
                return
            yield order | {"similarity": torch.full((len(order["seeds"]),), similarity)}

    @override
    def loss(self, batch: Batch, rng: Rng) -> Loss:
        """Eq. 1 for one batch of new pictures, and the denoising loss of given ones where asked for."""
        span, prompts = self.span(rng), list(batch["prompts"])
        latents = draw_through(
            self.policy, prompts, batch["seeds"], span, size=self.config.sampler.size
        )  # fmt: skip
        latents = self._with_copies(latents, prompts, rng)
        prompts = prompts * (len(latents) // len(prompts))
        pictures = self.family.decode(latents)
        rewards = self.judges.weighted(pictures, prompts)
        total = self.config.scale * self._objective(rewards).mean()
        first = pictures.detach()[: len(batch["seeds"])]
        watched = self.judges.watch(first, prompts[: len(first)])
        scored = rewards.detach()[: len(first)]
        parts = {"reward": scored.mean(), "reward_std": scored.std(correction=0)}
        parts["similarity"] = batch["similarity"].mean()
        parts |= {name: rewards.new_tensor(value) for name, value in watched.items()}
        if self.config.pretrain:
            parts["loss_pretrain"] = self._denoising(batch, rng)
            total = total + self.config.pretrain_weight * parts["loss_pretrain"]
        return Loss(total, parts)

    def span(self, rng: Rng) -> Span:
        """The sampler steps that the gradient passes, the same for all rows of a batch."""
        through, steps = self.config.through, len(self.policy.stepper.times)
        match through:
            case LastSteps(number=number):
                return Span(max(0, steps - number), steps - 1)
            case RandomSteps(mean=mean, std=std):
                drawn = mean + std * torch.randn(64, generator=rng.generator)
                fitting = drawn.round()[(drawn.round() >= 1) & (drawn.round() <= steps)]
                number = int(fitting[0]) if len(fitting) else min(steps, max(1, round(mean)))
                return Span(steps - number, steps - 1)
            case OneStep(earliest=earliest, latest=latest):
                low = min(int(earliest * steps), steps - 1)
                high = max(low + 1, round(latest * steps))
                drawn = int(torch.randint(low, high, (), generator=rng.generator))
                return Span(drawn, drawn)
            case _:
                assert_never(through)

    def _with_copies(
        self, latents: Float[Tensor, "b c h w"], prompts: list[str], rng: Rng
    ) -> Float[Tensor, "n c h w"]:
        """DRaFT-LV: the last step again from noised copies of the finished latents, below them."""
        through, found = self.config.through, [latents]
        for _ in range(through.copies if isinstance(through, LastSteps) else 0):
            k = torch.full((len(latents),), len(self.policy.stepper.times) - 1, device=latents.device)
            x_t = self.policy.stepper.noised(latents.detach(), rng.normal(*latents.shape), k)
            found.append(last_step(self.policy, x_t, k, self.policy.conditions(prompts), inner=True))
        return torch.cat(found)

    def _objective(self, rewards: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
        objective = self.config.objective
        match objective:
            case Maximize():
                return -rewards
            case Hinge(margin=margin):
                return (margin - rewards).relu()
            case Distance(target=target):
                return (rewards - target).abs()
            case _:
                assert_never(objective)

    def _denoising(self, batch: Batch, rng: Rng) -> Float[Tensor, ""]:
        """The ordinary loss on given pictures (ReFL, algorithm 1, line 4)."""
        settings = Denoising()
        latents = latents_of(self.family, batch, rng, kind=self.config.images.latents)
        noised = add_noise(self.family, latents, rng, settings)
        prediction = self.family.predict(
            noised.x_t, noised.t, self._captions(batch["captions"], batch.get("sizes"))
        )
        return errors(self.family, prediction, noised, settings).mean()
