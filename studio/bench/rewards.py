"""Throughput of learning from rewards, and what its shortcuts save: `python -m studio.bench.rewards`.

Rollouts are pictures drawn, decoded and scored; updates are optimizer steps over the transitions of a rollout. Each
shortcut is measured against the same work without it, in paired rounds whose order changes, and the saving is the
median of the rounds' ratios:

- embeddings: cached, as while no text encoder trains, against computed anew in each call;
- reward: all pictures of a rollout at once, against one at a time (both new to its memory each round);
- unconditional pass: guidance 1, which skips it, against guidance 5.
"""

import dataclasses
import json
import random
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any, Literal

import torch
import tyro
from torch import Tensor

from studio.backend.core import Backend
from studio.backend.quiet import quiet
from studio.backend.shard import Shard
from studio.contracts.condition import Condition
from studio.models import build
from studio.models.denoising import Prompts
from studio.rewards.config import ClipAlignment, HeldOut, Incompressible, NoReward
from studio.rl.config import Ppo, Reinforced, Rollouts, Sampler
from studio.rl.judges import Judges
from studio.rl.learner import PolicyGradient
from studio.rl.orders import Orders
from studio.rl.policy import Policy
from studio.rl.rollout import roll_out
from studio.rl.trainer import part_of
from studio.rl.watch import Drift
from studio.settings.config import Positive, config
from studio.settings.run import Hardware

_PROMPTS = ("a sticker of a dog", "a sticker of a car", "a sticker of an apple", "a sticker of a rocket")
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


@config
class RewardBench:
    """Rollouts, updates, and what caching, batching and skipping save."""

    model: str = "studio-tiny"
    """Model that draws."""
    images: Positive = 16
    """Pictures a rollout."""
    steps: Positive = 5
    """Sampler steps."""
    rounds: Positive = 5
    """Paired rounds."""
    clock: Literal["wall", "cpu"] = "wall"
    """cpu counts the process's own seconds, for a machine that is busy with other things."""
    hardware: Hardware = Hardware()


Work = Callable[[], Any]


def paired(works: dict[str, Work], *, rounds: int, clock: str) -> dict[str, list[float]]:
    """Seconds of each work in each round; the order changes, and one round before them is not counted."""
    now, order = CLOCKS[clock], list(works)
    times: dict[str, list[float]] = {name: [] for name in works}
    for number in range(-1, rounds):
        random.Random(number).shuffle(order)
        for name in order:
            start = now()
            works[name]()
            if number >= 0:
                times[name].append(now() - start)
    return times


def ratio(times: dict[str, list[float]], slow: str, fast: str) -> float:
    """How many times longer the slow work takes: the median over rounds."""
    return statistics.median(a / b for a, b in zip(times[slow], times[fast], strict=True))


class Contest:
    """The policy gradient on one model, with and without each shortcut."""

    def __init__(self, settings: RewardBench) -> None:
        self._settings, self._backend = settings, Backend(settings.hardware)
        self._family = build.load(settings.model, self._backend)
        prompts = [_PROMPTS[i % len(_PROMPTS)] for i in range(settings.images)]
        self._prompts, self._seeds = prompts, list(range(settings.images))
        clip: HeldOut = ClipAlignment() if settings.model == build.EMBEDDED else Incompressible()
        self._config = Reinforced(
            prompts=_PROMPTS, model=settings.model, reward=clip, held_out=NoReward(), ppo=Ppo(fraction=1.0),
            rollouts=Rollouts(images=settings.images, steps=settings.steps, guidance=1.0, chunk=settings.images),
        )  # fmt: skip
        self._judges = Judges(self._config, self._backend.device)

    def policy(self, guidance: float) -> Policy:
        """The denoiser as a policy; its text encoder is frozen."""
        sampler = Sampler(steps=self._settings.steps, guidance=guidance)
        return Policy(self._family, part_of(self._family, "denoiser"), sampler)

    def rollout(self, guidance: float) -> Work:
        """Draw, decode and score one rollout."""
        policy = self.policy(guidance)

        def work() -> None:
            for part, drawn in roll_out(policy, self._prompts, self._seeds, chunk=len(self._seeds)):
                with torch.no_grad():
                    self._judges.terms.scored(drawn, part.prompts)

        return work

    def update(self) -> Work:
        """The loss of all transitions of one rollout, and its gradient; the denoiser's last block trains."""
        trained = part_of(self._family, "denoiser")
        module = next(iter(trained.values()))
        weights = list(module.parameters())[-4:]
        for weight in weights:
            weight.requires_grad_(True)
        learner = PolicyGradient(
            self._config, self.policy(1.0), self._backend, self._judges, Drift(self._family, {}, ())
        )
        total = self._settings.images
        orders = Orders(_PROMPTS, images=total, group=1)
        batch = self._backend.move(next(learner.batches(orders.stream(0, 0, Shard(total, 0, total)), 0)))

        def work() -> None:
            learner.loss(batch).total.backward()

        return work

    def embeddings(self) -> dict[str, Work]:
        """The condition of one call, as a sampler step or an update asks for it."""
        kept = Prompts(self._family, trains=False)

        def anew() -> Condition:
            with torch.no_grad():
                return self._family.embed(self._prompts)

        return {"cached": lambda: kept(self._prompts), "anew": anew}

    def rewards(self) -> dict[str, Work]:
        """The same pictures, at once and one at a time."""
        side = self._family.default_size
        images = torch.rand(len(self._seeds), 3, side, side, generator=torch.Generator().manual_seed(0))
        images = (images * 2 - 1).to(self._backend.device)
        return {
            "at once": lambda: self._scored([images]),
            "one at a time": lambda: self._scored(images.split(1)),
        }

    def _scored(self, parts: Any) -> Tensor:
        """Scores that are not remembered."""
        found, first = [], 0
        with torch.no_grad():
            for part in parts:
                found += self._judges.terms.scored(part, self._prompts[first : first + len(part)])
                first += len(part)
        return torch.cat(found)


def run(settings: RewardBench) -> dict[str, Any]:
    """Measure everything."""
    contest = Contest(settings)
    options = {"rounds": settings.rounds, "clock": settings.clock}
    works = {
        "guidance 1": contest.rollout(1.0),
        "guidance 5": contest.rollout(5.0),
        "update": contest.update(),
    }
    times = paired(works, **options)
    embeddings, rewards = paired(contest.embeddings(), **options), paired(contest.rewards(), **options)
    rollout, update = statistics.median(times["guidance 1"]), statistics.median(times["update"])
    call = statistics.median(embeddings["anew"]) - statistics.median(embeddings["cached"])
    return {
        "settings": dataclasses.asdict(settings),
        "threads": torch.get_num_threads(),
        "rollout images/s": settings.images / rollout,
        "rollout images/s, guidance 5": settings.images / statistics.median(times["guidance 5"]),
        "updates/s": 1 / update,
        "transitions/s": settings.images * settings.steps / update,
        "saved by cached embeddings, ms a call": 1e3 * call,
        "embeddings anew / cached": ratio(embeddings, "anew", "cached"),
        "rewards one at a time / at once": ratio(rewards, "one at a time", "at once"),
        "rollout with / without unconditional pass": ratio(times, "guidance 5", "guidance 1"),
    }


def main() -> None:
    """Measure and print as JSON."""
    settings = tyro.cli(RewardBench, description=__doc__)
    quiet()
    sys.stdout.write(json.dumps(run(settings), indent=1, default=str) + "\n")


if __name__ == "__main__":
    main()
