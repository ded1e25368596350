"""TexForce and DDPO: what moves, what a first update is, learning by pairs, resuming inside a rollout, guards."""

import dataclasses
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from studio.adapters.config import Lora
from studio.backend.core import Backend
from studio.backend.rng import Rng
from studio.backend.shard import Shard
from studio.catalog.run import Run
from studio.contracts.batch import Batch
from studio.contracts.sampling import Request
from studio.errors import RunFailed, StudioError
from studio.rewards.config import Brightness, Mix, Redness, User
from studio.rl.config import GroupAdvantage, Ppo, PromptAdvantage, Rollouts
from studio.rl.orders import Orders
from studio.rl.rollout import roll_out
from studio.rl.sizes import learned_steps
from studio.rl.trainer import ReinforcedTrainer
from studio.settings.run import Hardware, Loop, Optim
from studio.training.loop import fit
from studio.training.optim import Learner
from studio.training.train import run_to_end, train
from studio.training.verify import verify_resume
from trainers.ddpo.config import METHOD as DDPO
from trainers.ddpo.config import Ddpo
from trainers.ddpo.trainer import DdpoTrainer
from trainers.texforce.config import METHOD, TexForce
from trainers.texforce.trainer import TexForceTrainer

CPU = Hardware(device="cpu")
SMALL: dict[str, Any] = {
    "prompts": ("a dog", "a cat"), "model": "tiny:sd1", "reward": Redness(), "held_out": Brightness(),
    "rollouts": Rollouts(images=4, steps=3, group=2), "ppo": Ppo(fraction=1.0),
}  # fmt: skip
PICTURES, TRANSITIONS = 4, 12


def ready(trainer: ReinforcedTrainer) -> ReinforcedTrainer:
    trainer.backend = Backend(CPU)
    with trainer.backend.seeded(0):
        trainer.groups = trainer.setup(trainer.backend)
    return trainer


def texforce(**changes: Any) -> ReinforcedTrainer:
    return ready(TexForceTrainer(TexForce(**SMALL | changes)))


def first_batch(trainer: ReinforcedTrainer, size: int = PICTURES) -> Batch:
    return next(trainer.batches(trainer.source().stream(0, 0, Shard(size, 0, size)), 0))


def gradients(trainer: ReinforcedTrainer, batch: Batch) -> dict[str, torch.Tensor]:
    trainer.loss(batch, Rng.single(0, 1, len(batch["k"]))).total.backward()
    modules = trainer.family.modules().items()
    found = {
        f"{m}.{k}": p.grad for m, net in modules for k, p in net.named_parameters() if p.grad is not None
    }
    for net in trainer.family.modules().values():
        net.zero_grad(set_to_none=True)
    return found


@pytest.mark.parametrize(
    ("trainer", "owner"),
    [(TexForceTrainer(TexForce(**SMALL)), "text_encoder."), (DdpoTrainer(Ddpo(**SMALL)), "unet.")],
    ids=["texforce", "ddpo"],
)
def test_only_the_adapter_has_a_gradient_and_at_first_only_its_second_factor(
    trainer: ReinforcedTrainer, owner: str
):
    found = gradients(ready(trainer), first_batch(trainer))
    assert found
    assert all(key.startswith(owner) and ".lora_" in key for key in found)
    moving = {key for key, grad in found.items() if bool(grad.abs().sum() > 0)}
    assert moving == {key for key in found if ".lora_B." in key}


def test_the_first_ratio_is_1_and_the_next_is_not():
    trainer = texforce()
    batch = first_batch(trainer)
    assert float(trainer.loss(batch, Rng.single(0, 1, TRANSITIONS)).parts["ratio_max"]) < 1e-5
    optimizer = torch.optim.SGD([p for g in trainer.groups for p in g.parameters().values()], 1.0)
    trainer.loss(batch, Rng.single(0, 1, TRANSITIONS)).total.backward()
    optimizer.step()
    assert float(trainer.loss(batch, Rng.single(0, 1, TRANSITIONS)).parts["ratio_max"]) > 1e-4


def test_equal_rewards_give_no_gradient():
    trainer = texforce()
    batch = first_batch(trainer)
    batch["advantages"] = torch.zeros_like(batch["advantages"])
    assert all(not grad.any() for grad in gradients(trainer, batch).values())


def test_the_divergence_is_0_at_the_base_model_and_grows():
    trainer = texforce(ppo=Ppo(fraction=1.0, kl_weight=1.0))
    batch, rng = first_batch(trainer), Rng.single(0, 1, TRANSITIONS)
    assert float(trainer.loss(batch, rng).parts["kl"].detach()) < 1e-9
    with torch.no_grad():
        for p in trainer.groups[0].parameters().values():
            p.add_(0.1)
    assert float(trainer.loss(batch, rng).parts["kl"].detach()) > 1e-6


def test_a_frozen_unconditional_prompt_changes_the_gradient():
    one, two = (texforce(freeze_uncond=frozen) for frozen in (False, True))
    batch = first_batch(one)
    left, right = gradients(one, batch), gradients(two, batch)
    assert any(not torch.allclose(left[key], right[key]) for key in left)


def test_a_picture_is_a_function_of_its_seed():
    policy = texforce().learner._policy
    together = next(roll_out(policy, ["a dog", "a cat"], [1, 2]))[0]
    alone = next(roll_out(policy, ["a cat"], [2]))[0]
    torch.testing.assert_close(together.chain[1:], alone.chain, rtol=1e-4, atol=1e-5)


def test_orders_use_every_prompt_equally_and_start_anywhere():
    orders = Orders(["a", "b", "c"], images=6, group=2)
    straight, later = orders.stream(7, 0, Shard(3, 0, 3)), orders.stream(7, 3, Shard(3, 0, 3))
    batches = [next(straight) for _ in range(4)]
    assert batches[0]["prompts"] == batches[1]["prompts"]
    assert sorted(batches[0]["prompts"]) == ["a", "a", "b", "b", "c", "c"]
    assert batches[0]["seeds"] != batches[2]["seeds"]
    assert next(later) == batches[3]


def test_rewards_and_steps_are_those_of_the_official_commands():
    assert TexForce().advantage == Ddpo().advantage == PromptAdvantage(buffer=32, min_count=16)
    texforce, ddpo = (
        Run.of(method, model="sd15", prompts=("a photo of a hand",)).method for method in ("texforce", "ddpo")
    )
    assert (texforce.advantage, ddpo.advantage) == (
        PromptAdvantage(buffer=32, min_count=16),
        PromptAdvantage(buffer=16, min_count=16),
    )
    assert (TexForce().ppo, texforce.ppo) == (Ppo(fraction=0.5), Ppo(fraction=0.5))
    assert (Ddpo().ppo, ddpo.ppo) == (Ppo(), Ppo())
    assert (learned_steps(texforce), learned_steps(ddpo)) == (25, 50)


def mean_reward(trainer: ReinforcedTrainer, count: int) -> torch.Tensor:
    """Rewards of fixed seeds."""
    parts = roll_out(trainer.learner._policy, ["a dog"] * count, list(range(count)), chunk=count)
    return torch.cat([trainer.learner.terms(images, part.prompts)[0] for part, images in parts])


def gain(weight: float) -> tuple[float, float]:
    """Mean gain of the same seeds after training, and its standard error."""
    trainer = texforce(
        prompts=("a dog",), reward=Mix(weights={"redness": weight}), min_similarity=0.0,
        rollouts=Rollouts(images=16, steps=4, guidance=1.0, chunk=16),
    )  # fmt: skip
    before = mean_reward(trainer, 32)
    run = Run(method=trainer.config, loop=Loop(steps=8, batch_size=16), optim=Optim(lr=1e-2), hardware=CPU)
    for _ in fit(
        trainer, Learner(trainer.groups, run.optim, run.loop, trainer.backend.scaler()), trainer.backend, run
    ):
        pass
    difference = mean_reward(trainer, 32) - before
    return float(difference.mean()), float(difference.std() / len(difference) ** 0.5)


def test_the_reward_grows_and_falls_when_its_sign_is_turned():
    up, up_error = gain(1.0)
    down, down_error = gain(-1.0)
    assert up > 5 * up_error
    assert down < -5 * down_error


def run_of(method: Any, folder: Path, **loop: Any) -> Run:
    return Run(
        method=method, output=str(folder), name="one", hardware=CPU, optim=Optim(lr=1e-3),
        loop=Loop(**{"steps": 4, "batch_size": 2, "log_every": 1} | loop),
    )  # fmt: skip


def test_a_stop_inside_a_rollout_resumes_exactly_with_every_memory(tmp_path: Path):
    method = TexForce(
        **SMALL | {"reward": Mix(weights={"redness": 1.0, "incompressible": 0.5})},
        advantage=PromptAdvantage(buffer=4, min_count=2),
    )
    assert verify_resume(run_of(method, tmp_path), steps=4, at=3) == []


def test_checkpoints_on_the_way_fall_between_rollouts(tmp_path: Path):
    run = run_of(TexForce(**SMALL), tmp_path, checkpoint_every=1, keep_checkpoints=9)
    steps = [event["step"] for event in train(run) if event["event"] == "checkpoint"]
    assert steps == [2, 4]


def test_a_step_tells_reward_spread_ratio_and_drift(tmp_path: Path):
    method = TexForce(**SMALL, advantage=GroupAdvantage())
    (event,) = [e for e in train(run_of(method, tmp_path, steps=1)) if e["event"] == "step"]
    wanted = {
        "reward",
        "reward_std",
        "held_out",
        "diversity",
        "similarity",
        "ratio_max",
        "clip_fraction",
        "approx_kl",
    }
    assert wanted <= event.keys()
    assert event["similarity"] == pytest.approx(1, abs=1e-5)


def test_previews_are_scored_by_reward_held_out_reward_and_diversity():
    trainer = texforce()
    request = Request(prompts=["a dog"], num_images=2, steps=1, guidance=1.0)
    scores = trainer.score(trainer.sample(request, Rng.single(0, 0, 2)), request)
    assert set(scores) == {"redness", "held_out", "diversity", "quality"}
    assert scores["quality"] == scores["redness"]


def test_a_run_ends_when_the_embeddings_have_drifted(tmp_path: Path):
    method = TexForce(**SMALL, min_similarity=0.99999)
    run = dataclasses.replace(run_of(method, tmp_path), optim=Optim(lr=0.05))
    events = list(train(run))
    assert [e["event"] for e in events][-1] == "done"
    assert events[-1]["step"] == 2


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ("1 / 0", r"failed \(ZeroDivisionError: division by zero\)"),
        ("images.mean((1, 2, 3)) * float('nan')", "gave nan for picture 0"),
        ("images.mean((2, 3))", r"gave the shape \(4, 3\)"),
        ("time.sleep(3)", r"failed \(TimeoutError: it took longer than 1 s\)"),
    ],
    ids=["throws", "nan", "shape", "slow"],
)
def test_a_reward_that_breaks_is_named_and_leaves_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, second: str, message: str
):
    code = f"import time\ncalls = []\ndef reward(images, prompts):\n    calls.append(1)\n    return images.mean((1, 2, 3)) if len(calls) < 2 else {second}"
    (tmp_path / "second_time.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "second_time", raising=False)
    method = TexForce(**SMALL | {"reward": User(function="second_time:reward", seconds=1.0)})
    with pytest.raises(RunFailed, match=f"Reward 'second_time:reward' {message}"):
        run_to_end(run_of(method, tmp_path))
    assert [p.name for p in (tmp_path / "one" / "checkpoints").iterdir()] == ["step-00000002"]


@pytest.mark.parametrize("model", ["tiny:sdxl", "tiny:sd3"])
def test_other_families_learn_too(model: str):
    trainer = texforce(model=model, rollouts=Rollouts(images=2, steps=2, noise=0.7))
    found = gradients(trainer, first_batch(trainer, size=2))
    assert {key.split(".")[0] for key in found} == set(trainer.trained)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompts": ()}, "Give prompts to learn on"),
        ({"file": "none.txt", "prompts": ()}, "There is no file 'none.txt'"),
        (
            {"rollouts": Rollouts(images=4, steps=1), "ppo": Ppo(last_step=False)},
            "rollouts.steps 1 has a last step only",
        ),
        ({"adapter": Lora(dropout=0.1)}, "adapter.dropout"),
    ],
)
def test_settings_that_cannot_work_are_refused(changes: dict[str, Any], message: str):
    plain = {**SMALL, "rollouts": Rollouts(images=4)} | changes
    with pytest.raises(StudioError, match=message):
        METHOD.check(TexForce(**plain))
    with pytest.raises(StudioError, match=message):
        DDPO.check(Ddpo(**plain))
