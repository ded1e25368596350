"""DRaFT, ReFL and AlignProp: whose gradient it is, what holds a graph, and that the reward grows."""

from dataclasses import replace
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
from studio.data.config import Images
from studio.errors import RunFailed, StudioError
from studio.models.draw import start_noise
from studio.rewards.config import Brightness, Incompressible, Mix, Redness, User
from studio.rl.chain import Span, draw_through
from studio.rl.config import Sampler
from studio.settings.run import Hardware, Loop, Optim
from studio.training.loop import fit
from studio.training.optim import Learner
from studio.training.train import train
from tests.cases import photos
from trainers.draft.config import Distance, Draft, Hinge, LastSteps, OneStep, RandomSteps, check
from trainers.draft.trainer import DraftTrainer

CPU = Hardware(device="cpu")
SMALL: dict[str, Any] = {
    "prompts": ("a dog", "a cat"), "model": "tiny:sd1", "reward": Redness(), "held_out": Brightness(),
    "sampler": Sampler(steps=4, noise=0.0, guidance=3.0), "adapter": Lora(rank=2),
    "min_similarity": 0.0,
}  # fmt: skip
PARTS = {"denoiser": "unet.", "text-encoder": "text_encoder."}


def draft(**changes: Any) -> DraftTrainer:
    trainer = DraftTrainer(Draft(**SMALL | changes))
    trainer.backend = Backend(CPU)
    with trainer.backend.seeded(0):
        trainer.groups = trainer.setup(trainer.backend)
    return trainer


def parameters(trainer: DraftTrainer) -> dict[str, torch.nn.Parameter]:
    return {key: p for group in trainer.groups for key, p in group.parameters().items()}


def moved(trainer: DraftTrainer) -> DraftTrainer:
    """The same away from the base model, where both factors have gradients."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in parameters(trainer).values():
            p.add_(0.1 * torch.randn(p.shape, generator=generator))
    return trainer


def first_batch(trainer: DraftTrainer, size: int = 2) -> Batch:
    return next(trainer.batches(trainer.source().stream(0, 0, Shard(size, 0, size)), 0))


def gradients(trainer: DraftTrainer, total: torch.Tensor) -> dict[str, torch.Tensor]:
    found = torch.autograd.grad(total, list(parameters(trainer).values()), allow_unused=True)
    return {key: g for key, g in zip(parameters(trainer), found, strict=True) if g is not None}


@pytest.mark.parametrize(("trains", "owner"), PARTS.items())
def test_only_the_adapter_of_the_part_that_trains_has_a_gradient(trains: str, owner: str):
    trainer = draft(trains=trains)
    trainer.loss(first_batch(trainer), Rng.single(0, 1, 2)).total.backward()
    found = {
        f"{name}.{key}": p.grad
        for name, module in trainer.family.modules().items()
        for key, p in module.named_parameters()
        if p.grad is not None
    }
    assert all(key.startswith(owner) and ".lora_" in key for key in found)
    assert {key for key, grad in found.items() if grad.any()} == {key for key in found if ".lora_B." in key}


@pytest.mark.parametrize("trains", PARTS)
def test_the_gradient_is_that_of_the_last_step_written_out(trains: str):
    trainer = moved(draft(trains=trains))
    batch, family, stepper = first_batch(trainer), trainer.family, trainer.policy.stepper
    ours = gradients(trainer, trainer.loss(batch, Rng.single(0, 1, 2)).total)
    prompts = batch["prompts"]
    x, _ = start_noise(family, batch["seeds"], family.default_size, family.default_size)
    levels = stepper.alphas_cumprod
    for k in range(4):
        with torch.set_grad_enabled(k == 3):
            t = stepper.times[k].expand(2)
            text, empty = family.embed(prompts), family.embed(["", ""])
            plain = family.predict(x, t, empty)
            eps = plain + 3.0 * (family.predict(x, t, text) - plain)
            clean = (x - (1 - levels[k]).sqrt() * eps) / levels[k].sqrt()
            x = levels[k + 1].sqrt() * clean + (1 - levels[k + 1]).sqrt() * eps
    pixels = family.decode(x)
    red = pixels[:, 0].mean((1, 2)) - (pixels[:, 1] + pixels[:, 2]).mean((1, 2)) / 2
    theirs = gradients(trainer, -red.mean())
    assert ours.keys() == theirs.keys()
    for key, grad in theirs.items():
        torch.testing.assert_close(ours[key], grad, rtol=2e-3, atol=1e-7)


def test_recomputed_steps_give_the_gradient_of_kept_ones():
    trainer = moved(draft(sampler=Sampler(steps=3, noise=1.0, guidance=1.0)))
    batch = first_batch(trainer)
    args = trainer.policy, batch["prompts"], batch["seeds"]
    recomputed = gradients(trainer, draw_through(*args, Span(1, 2)).square().sum())
    stepper, (x, generators) = trainer.policy.stepper, start_noise(trainer.family, batch["seeds"], 64, 64)
    for index in range(3):
        k = torch.full((2,), index)
        with torch.set_grad_enabled(index >= 1):
            mean, std = trainer.policy.gaussian(x, k, trainer.policy.conditions(batch["prompts"]))
        if index == 2:
            break
        z = torch.stack([torch.randn(x.shape[1:], generator=one) for one in generators])
        x = mean + std[:, None, None, None] * z
    assert len(stepper.times) == 3
    kept = gradients(trainer, mean.square().sum())
    for key, grad in kept.items():
        torch.testing.assert_close(recomputed[key], grad, rtol=1e-3, atol=1e-6)


def test_steps_before_the_span_hold_no_graph():
    trainer = moved(draft())
    policy, seen = trainer.policy, []
    ordinary = policy.predict
    policy.predict = lambda *args: seen.append(ordinary(*args)) or seen[-1]
    batch = first_batch(trainer)
    draw_through(policy, batch["prompts"], batch["seeds"], Span(2, 2))
    assert [found.grad_fn is None for found in seen] == [True, True, False]


def test_a_picture_of_one_step_is_the_clean_one_it_points_to():
    trainer = draft()
    batch = first_batch(trainer)
    args = trainer.policy, batch["prompts"], batch["seeds"]
    short, long = (draw_through(*args, Span(last, last)) for last in (0, 3))
    assert short.shape == long.shape == (2, 4, 8, 8)
    k = torch.zeros(2, dtype=torch.long)
    x, _ = start_noise(trainer.family, batch["seeds"], 64, 64)
    prediction = trainer.policy.predict(x, k, trainer.policy.conditions(batch["prompts"]))
    torch.testing.assert_close(short, trainer.policy.stepper.clean(prediction, x, k))


def test_spans_are_what_the_papers_draw():
    rngs = [Rng.single(0, step, 1) for step in range(40)]
    fixed = draft(through=LastSteps(number=3))
    assert fixed.span(rngs[0]) == Span(1, 3)
    refl = draft(through=OneStep(earliest=0.5))
    assert {refl.span(rng) for rng in rngs} == {Span(2, 2), Span(3, 3)}
    drawn = {draft_span.first for draft_span in map(draft(through=RandomSteps(mean=2, std=1)).span, rngs)}
    assert {1, 2, 3} <= drawn <= {0, 1, 2, 3}


def test_copies_add_their_gradient_and_leave_the_first_pictures_as_they_are():
    one, many = draft(), draft(through=LastSteps(copies=2))
    batch = first_batch(one)
    left, right = (trainer.loss(batch, Rng.single(0, 1, 2)) for trainer in (one, many))
    torch.testing.assert_close(left.parts["reward"], right.parts["reward"])
    assert not torch.equal(left.total, right.total)


@pytest.mark.parametrize(
    ("objective", "expected"), [(Hinge(margin=0.5), [0.0, 1.5]), (Distance(target=2.0), [1.0, 3.0])]
)
def test_objectives_are_those_of_the_papers(objective: Any, expected: list[float]):
    found = DraftTrainer(Draft(**SMALL, objective=objective))._objective(torch.tensor([1.0, -1.0]))
    torch.testing.assert_close(found, torch.tensor(expected))


def mean_reward(trainer: DraftTrainer, count: int = 32) -> torch.Tensor:
    with torch.no_grad():
        latents = draw_through(trainer.policy, ["a dog"] * count, list(range(count)), Span(4, 3))
        return trainer.judges.weighted(trainer.family.decode(latents), ["a dog"] * count)


@pytest.mark.parametrize("trains", PARTS)
def test_the_reward_of_fixed_seeds_grows(trains: str):
    trainer = draft(prompts=("a dog",), trains=trains)
    before = mean_reward(trainer)
    run = Run(method=trainer.config, loop=Loop(steps=8, batch_size=8), optim=Optim(lr=1e-2), hardware=CPU)
    for _ in fit(
        trainer, Learner(trainer.groups, run.optim, run.loop, trainer.backend.scaler()), trainer.backend, run
    ):
        pass
    gain = mean_reward(trainer) - before
    assert float(gain.mean()) > 5 * float(gain.std()) / len(gain) ** 0.5


@pytest.mark.parametrize("cache", ["none", "latents+text"])
def test_pretraining_pictures_add_the_denoising_loss(tmp_path: Path, cache: str):
    folder = photos(tmp_path / "photos")
    for index in range(3):
        (tmp_path / "photos" / f"{index}.txt").write_text("a dog")
    trainer = draft(pretrain=folder, images=Images(cache=cache, cache_folder=str(tmp_path / "cache")))
    loss = trainer.loss(first_batch(trainer), Rng.single(0, 1, 2))
    torch.testing.assert_close(loss.total, -loss.parts["reward"] + loss.parts["loss_pretrain"])


def run_of(method: Draft, folder: Path, **values: Any) -> Run:
    return Run(
        method=method, output=str(folder), name="one", hardware=CPU, optim=Optim(lr=values.pop("lr", 1e-3)),
        loop=Loop(**{"steps": 3, "batch_size": 2, "log_every": 1} | values),
    )  # fmt: skip


def test_a_step_tells_reward_spread_held_out_diversity_and_drift(tmp_path: Path):
    method = Draft(**SMALL, trains="text-encoder")
    (event,) = [e for e in train(run_of(method, tmp_path, steps=1)) if e["event"] == "step"]
    assert {"reward", "reward_std", "held_out", "diversity", "similarity"} <= event.keys()


def test_a_run_ends_when_the_embeddings_have_drifted(tmp_path: Path):
    method = Draft(**SMALL | {"trains": "text-encoder", "min_similarity": 0.9999})
    events = list(train(run_of(method, tmp_path, lr=0.1)))
    assert events[-1]["event"] == "done"
    assert events[-1]["step"] < 3


def test_accumulating_parts_is_the_whole_batch():
    trainer = moved(draft())
    batch = first_batch(trainer, 4)
    whole = gradients(trainer, trainer.loss(batch, Rng.single(0, 1, 4)).total)
    halves = [{key: values[i : i + 2] for key, values in batch.items()} for i in (0, 2)]
    parts = [gradients(trainer, trainer.loss(half, Rng.single(0, 1, 2)).total) for half in halves]
    for key, grad in whole.items():
        torch.testing.assert_close((parts[0][key] + parts[1][key]) / 2, grad, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reward": Incompressible()}, r"Reward 'incompressible' has no gradient to the pictures"),
        (
            {"reward": Mix(weights={"redness": 1.0, "compressible": 1.0})},
            "Reward 'compressible' has no gradient",
        ),
        ({"reward": User(function="mine:smile")}, r"'mine:smile' has no gradient .* --reward.differentiable"),
        ({"through": LastSteps(number=5)}, "choose --through.number 4, or --sampler.steps 5"),
        ({"through": LastSteps(number=2, copies=1)}, "set --through.number 1"),
        ({"adapter": Lora(dropout=0.1)}, "adapter.dropout"),
        ({"pretrain": "none"}, "Folder 'none' does not exist"),
    ],
)
def test_settings_that_cannot_work_are_refused(changes: dict[str, Any], message: str):
    with pytest.raises(StudioError, match=message):
        check(Draft(**SMALL | changes))


def test_what_is_proposed_for_too_few_sampler_steps_is_accepted():
    check(Draft(**SMALL | {"through": LastSteps(number=4)}))
    check(Draft(**SMALL | {"through": LastSteps(number=5), "sampler": replace(SMALL["sampler"], steps=5)}))
    check(Draft(**SMALL | {"through": LastSteps(number=1, copies=1)}))
    check(Draft(**SMALL | {"through": LastSteps(number=2, copies=0)}))


def test_a_reward_that_promised_a_gradient_and_has_none_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "flat_reward.py").write_text(
        "def red(images, prompts):\n    return images.detach().mean((1, 2, 3))"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    trainer = draft(reward=User(function="flat_reward:red", differentiable=True))
    with pytest.raises(RunFailed, match=r"Reward 'flat_reward:red' has no gradient"):
        trainer.loss(first_batch(trainer), Rng.single(0, 1, 2))


def test_a_differentiable_function_of_ones_own_is_a_reward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "own_reward.py").write_text("def red(images, prompts):\n    return images[:, 0].mean((1, 2))")
    monkeypatch.syspath_prepend(str(tmp_path))
    trainer = draft(reward=User(function="own_reward:red", differentiable=True))
    found = gradients(trainer, trainer.loss(first_batch(trainer), Rng.single(0, 1, 2)).total)
    assert any(grad.any() for grad in found.values())
