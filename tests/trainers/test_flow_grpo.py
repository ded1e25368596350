"""Flow-GRPO: the flow sampler's policy on SD3 and FLUX, group advantages, and what is refused."""

from typing import Any

import pytest
import torch

from studio.adapters.config import Lora
from studio.backend.core import Backend
from studio.backend.rng import Rng
from studio.backend.shard import Shard
from studio.diffusion.sampling import log_probability
from studio.errors import StudioError
from studio.rewards.config import Brightness, Redness
from studio.rl.config import Ppo, RolloutAdvantage, Rollouts
from studio.rl.stepper import FlowSde
from studio.settings.run import Hardware
from trainers.flow_grpo.config import METHOD, FlowGrpo
from trainers.flow_grpo.trainer import FlowGrpoTrainer

CPU = Hardware(device="cpu")
SMALL: dict[str, Any] = {
    "prompts": ("a dog", "a cat"), "model": "tiny:sd3", "reward": Redness(), "held_out": Brightness(),
    "rollouts": Rollouts(images=4, group=2, steps=3, noise=0.7, guidance=2.0), "ppo": Ppo(fraction=1.0),
    "adapter": Lora(rank=2, alpha=4.0),
}  # fmt: skip


def grpo(**changes: Any) -> FlowGrpoTrainer:
    trainer = FlowGrpoTrainer(FlowGrpo(**SMALL | changes))
    trainer.backend = Backend(CPU)
    with trainer.backend.seeded(0):
        trainer.groups = trainer.setup(trainer.backend)
    return trainer


def first_loss(trainer: FlowGrpoTrainer, size: int = 4) -> Any:
    batch = next(trainer.batches(trainer.source().stream(0, 0, Shard(size, 0, size)), 0))
    return trainer.loss(batch, Rng.single(0, 1, len(batch["k"])))


@pytest.mark.parametrize("model", ["tiny:sd3", "tiny:flux"])
def test_the_first_ratio_is_1_and_only_the_transformer_learns(model: str):
    trainer = grpo(model=model)
    assert isinstance(trainer.learner._policy.stepper, FlowSde)
    loss = first_loss(trainer)
    assert float(loss.parts["ratio_max"]) < 1e-5
    loss.total.backward()
    owners = {
        name
        for name, module in trainer.family.modules().items()
        if any(p.grad is not None for p in module.parameters())
    }
    assert owners == {"transformer"}


def test_every_step_but_the_last_is_learned_from_as_in_the_official_code():
    trainer = grpo(ppo=FlowGrpo().ppo, rollouts=Rollouts(images=4, group=2, steps=5, noise=0.7))
    batch = next(trainer.batches(trainer.source().stream(0, 0, Shard(4, 0, 4)), 0))
    assert sorted(batch["k"].tolist()) == sorted([0, 1, 2, 3] * 4)


def test_a_step_tells_the_share_of_groups_that_teach_nothing():
    assert float(first_loss(grpo()).parts["flat_groups"]) == 0.0


def test_the_divergence_is_asked_for_by_its_weight():
    assert float(first_loss(grpo(ppo=Ppo(fraction=1.0, kl_weight=0.01))).parts["kl"].detach()) < 1e-9


def test_good_pictures_become_likelier_than_bad_ones():
    trainer = grpo()
    batch = next(trainer.batches(trainer.source().stream(0, 0, Shard(4, 0, 4)), 0))
    assert set(batch["advantages"].sign().tolist()) == {1.0, -1.0}
    optimizer = torch.optim.SGD(list(trainer.groups[0].parameters().values()), lr=0.1)
    trainer.loss(batch, Rng.single(0, 1, 12)).total.backward()
    optimizer.step()
    policy = trainer.learner._policy
    with torch.no_grad():
        mean, std = policy.gaussian(batch["x_t"], batch["k"], policy.conditions(batch["prompts"]))
    moved = log_probability(batch["x_next"], mean, std) - batch["logp"]
    assert float((moved * batch["advantages"]).mean()) > 0


def test_a_model_of_eps_is_refused():
    with pytest.raises(StudioError, match=r"sd1 predicts eps, and Flow-GRPO needs a flow-matching model"):
        grpo(model="tiny:sd1")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"rollouts": Rollouts(images=4, noise=0.0), "advantage": RolloutAdvantage()},
            "rollouts.noise 0 draws without chance",
        ),
        ({"adapter": Lora(dropout=0.1)}, "adapter.dropout"),
    ],
)
def test_settings_that_cannot_work_are_refused(changes: dict[str, Any], message: str):
    with pytest.raises(StudioError, match=message):
        METHOD.check(FlowGrpo(**SMALL | changes))
