"""The policy gradient on rollouts: what every method of this family delegates to.

    L = mean max(-A r, -A clip(r, 1 - e, 1 + e)),   r = exp(log p(x_{k+1} | x_k) - log p_old)   (DDPO, section 4.3)

over transitions of a rollout: sampler steps of pictures. A step is one optimizer step over the learned transitions of
`loop.batch_size` pictures; a rollout gives as many steps as it has batches. Axes: `b` transitions or pictures, `k` terms of
a reward.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from studio.backend.core import Backend
from studio.backend.rng import mix
from studio.contracts.batch import Batch
from studio.contracts.trainer import Loss
from studio.diffusion.sampling import log_probability
from studio.rewards.build import Running, Terms
from studio.rl.advantages import PromptStatistics, advantages, flat_groups
from studio.rl.config import GroupAdvantage, PromptAdvantage, Reinforced
from studio.rl.judges import Judges
from studio.rl.objectives import gaussian_kl, ppo_clip
from studio.rl.policy import Policy
from studio.rl.rollout import Rollout, joined, roll_out
from studio.rl.sizes import learned_steps
from studio.rl.stepper import learnable
from studio.rl.watch import Drift, diversity, thumbnails

log = logging.getLogger(__name__)
FACT = "fact_"
"""Prefix of what is known of a whole rollout, repeated for each transition."""


class Memory:
    """What outlives a rollout: rewards by prompt, and the running statistics of a mix of rewards."""

    def __init__(self, config: Reinforced, terms: Terms) -> None:
        buffer = config.advantage if isinstance(config.advantage, PromptAdvantage) else PromptAdvantage()
        self._make = lambda: Memory(config, terms)
        self.prompts = PromptStatistics(buffer.buffer, buffer.min_count)
        self.running = Running(terms.weights)

    def copy(self) -> "Memory":
        """The same, to be changed while the old one can still be saved."""
        made = self._make()
        made.load_state(self.state())
        return made

    def state(self) -> dict[str, Any]:
        """Both, as plain values."""
        return {"prompts": self.prompts.state(), "running": self.running.state()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take back what `state` gave."""
        self.prompts.load_state(state["prompts"])
        self.running.load_state(state["running"])


@dataclass(frozen=True)
class Collected:
    """A scored rollout, what is known of it, and what is remembered after it."""

    rollout: Rollout
    facts: dict[str, float]
    memory: Memory


class PolicyGradient:
    """Rolls out, scores, normalizes, and gives the loss of transitions."""

    def __init__(
        self,
        config: Reinforced,
        policy: Policy,
        backend: Backend,
        judges: Judges,
        drift: Drift,
    ) -> None:
        """Take the parts.

        Args:
            config: Settings.
            policy: The model.
            backend: The machine.
            judges: Rewards.
            drift: How far the text encoder is from the base model's, and when that is too far.
        """
        self._config, self._policy, self._backend, self._drift = config, policy, backend, drift
        self.terms, self._held_out = judges.terms, judges.held_out
        self._memory = Memory(config, self.terms)
        self._rollout: Collected | None = None
        self._done, self._updates = 0, 1
        self._learnable = learnable(policy.family, config.rollouts, last=config.ppo.last_step)
        self.per_image = learned_steps(config)

    def batches(self, data: Iterator[Batch], first: int) -> Iterator[Batch]:
        """Transitions to learn from, a step at a time; ends when the text encoder has moved too far."""
        self._done = first
        for order in data:
            position, self._updates = order["position"][0], order["updates"][0]
            if position and self._rollout is None:
                log.warning("The rollout in progress was not saved: its last %d updates use a new one.",
                            self._updates - position)  # fmt: skip
            if not position or self._rollout is None:
                self._rollout = self._collect(order)
                if self._backend.any(self._drift.too_far(self._rollout.facts["similarity"])):
                    return
            yield self._transitions(self._rollout, order, position)

    def after_step(self, step: int) -> None:
        """Count a finished step; what a rollout taught the memory holds from its first update on."""
        self._done = step
        if self._rollout is not None:
            self._memory = self._rollout.memory

    def resumable(self, step: int) -> bool:
        """Whether a rollout is used up: a checkpoint there is small."""
        return step % self._updates == 0

    def state(self) -> dict[str, Any]:
        """The memory and, in the middle of a rollout of one process, the rollout."""
        kept = {"memory": self._memory.state()}
        if self._rollout is None or self.resumable(self._done) or self._backend.world > 1:
            return kept
        return kept | {"rollout": self._rollout.rollout.state(), "facts": self._rollout.facts}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take back what `state` gave."""
        self._memory.load_state(state["memory"])
        if "rollout" in state:
            self._rollout = Collected(Rollout(**state["rollout"]), state["facts"], self._memory)

    def _mine(self, images: int) -> slice:
        """The pictures of a rollout that this process draws."""
        size = images // self._backend.world
        return slice(self._backend.rank * size, (self._backend.rank + 1) * size)

    def _gathered(self, mine: Float[Tensor, "k b"], images: int) -> Float[Tensor, "k n"]:
        """The scores of all processes."""
        whole = torch.zeros(len(mine), images)
        whole[:, self._mine(images)] = mine
        return (self._backend.mean(whole.to(self._backend.device)) * self._backend.world).cpu()

    def _collect(self, order: Batch) -> Collected:
        settings, mine, images = self._config.rollouts, self._mine(len(order["seeds"])), len(order["seeds"])
        prompts, seeds = order["prompts"][mine], order["seeds"][mine]
        parts: list[Rollout] = []
        scores: list[Tensor] = []
        watched: list[Tensor] = []
        small: list[Tensor] = []
        for part, drawn in roll_out(self._policy, prompts, seeds, size=settings.size, chunk=settings.chunk):
            parts.append(part)
            scores.append(self.terms(drawn, part.prompts))
            watched.append(self._held_out(drawn, part.prompts))
            small.append(thumbnails(drawn))
        raw = self._gathered(torch.cat(scores, 1), images)
        memory = self._memory.copy()
        rewards = memory.running(raw)
        found = advantages(self._config.advantage, rewards, order["prompts"], memory.prompts)
        limit = self._config.ppo.advantage_max
        facts = self._facts(raw, rewards, self._gathered(torch.cat(watched, 1), images), order["prompts"])
        spread = diversity(torch.cat(small), prompts)
        facts["diversity"] = float(self._backend.mean(spread.to(self._backend.device)))
        return Collected(joined(parts, found[mine].clamp(-limit, limit)), facts, memory)

    def _facts(
        self,
        raw: Float[Tensor, "k n"],
        rewards: Float[Tensor, " n"],
        watched: Float[Tensor, "h n"],
        prompts: list[str],
    ) -> dict[str, float]:
        """Rewards of the rollout as drawn: the weighted sum without standardization, its spread, each term."""
        weights = raw.new_tensor(list(self.terms.weights.values()))
        facts = {"reward": float((weights @ raw).mean()), "reward_std": float(rewards.std(correction=0))}
        if len(raw) > 1:
            facts |= {
                f"reward_{n}": float(row.mean()) for n, row in zip(self.terms.weights, raw, strict=True)
            }
        if len(watched):
            facts["held_out"] = float(watched.mean())
        if isinstance(self._config.advantage, GroupAdvantage):
            facts["flat_groups"] = flat_groups(rewards, prompts)
        return facts | {"similarity": self._drift.similarity()}

    def _rows(self, order: Batch) -> tuple[Int[Tensor, " b"], Int[Tensor, " b"]]:
        """Pictures and sampler steps of all transitions, in the order of learning: whole pictures, shuffled."""
        seeds = order["seeds"][self._mine(len(order["seeds"]))]
        steps = torch.tensor(self._learnable)
        pictures: list[Tensor] = []
        chosen: list[Tensor] = []
        for epoch in range(self._config.ppo.epochs):
            generator = torch.Generator().manual_seed(mix(seeds[0], epoch))
            for picture in torch.randperm(len(seeds), generator=generator):
                few = torch.randperm(len(steps), generator=generator)[: self.per_image]
                pictures.append(picture.expand(self.per_image))
                chosen.append(steps[few])
        return torch.cat(pictures), torch.cat(chosen)

    def _transitions(self, collected: Collected, order: Batch, position: int) -> Batch:
        """The transitions of one update; facts of the rollout ride along."""
        pictures, steps = self._rows(order)
        size = len(pictures) // self._updates
        part = slice(position * size, (position + 1) * size)
        picture, k, rollout = pictures[part], steps[part], collected.rollout
        batch: Batch = {
            "x_t": rollout.chain[picture, k],
            "x_next": rollout.chain[picture, k + 1],
            "k": k,
            "logp": rollout.logp[picture, k],
            "advantages": rollout.advantages[picture],
            "prompts": [rollout.prompts[int(i)] for i in picture],
        }
        return batch | {
            f"{FACT}{name}": torch.full((size,), value) for name, value in collected.facts.items()
        }

    def loss(self, batch: Batch) -> Loss:
        """The clipped policy gradient, and the divergence from the base model where asked for."""
        settings, prompts = self._config.ppo, batch["prompts"]
        mean, std = self._policy.gaussian(batch["x_t"], batch["k"], self._policy.conditions(prompts))
        logp = log_probability(batch["x_next"], mean, std)
        total = ppo_clip(logp, batch["logp"], batch["advantages"], clip=settings.clip).mean()
        parts = {"loss_policy": total, **_moved(logp.detach(), batch["logp"], settings.clip)}
        if settings.kl_weight:
            base = self._policy.base_gaussian(batch["x_t"], batch["k"], prompts)
            parts["kl"] = gaussian_kl(mean, base, std).mean()
            total = total + settings.kl_weight * parts["kl"]
        facts = {key.removeprefix(FACT): value.mean() for key, value in batch.items() if key.startswith(FACT)}
        return Loss(total, parts | facts)


def _moved(logp: Float[Tensor, " b"], old: Float[Tensor, " b"], clip: float) -> dict[str, Tensor]:
    """How far the policy is from the one that drew: largest |ratio - 1|, share clipped, approximate divergence."""
    away = ((logp - old).exp() - 1).abs()
    return {
        "ratio_max": away.max(),
        "clip_fraction": (away > clip).float().mean(),
        "approx_kl": ((logp - old) ** 2).mean() / 2,
    }
