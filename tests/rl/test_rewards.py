"""Rewards: what they measure, how they are mixed, and how a broken one is named."""

import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from studio.errors import RunFailed, StudioError
from studio.metrics.config import OpenClip
from studio.rewards import pixels
from studio.rewards.build import Running, Seen, Terms, checked
from studio.rewards.config import Aesthetic, ClipAlignment, Incompressible, Mix, Redness, User
from studio.rewards.networks import aesthetic_head
from tests.metrics.judges import clip_folder

PROMPTS = ["a dog", "a cat"]
RED = torch.tensor([1.0, -1.0, -1.0])[:, None, None].expand(3, 32, 32)
NOISE = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
IMAGES = torch.stack([RED, NOISE])


def test_red_is_red_and_noise_is_incompressible():
    assert float(pixels.redness(IMAGES, PROMPTS)[0]) == pytest.approx(2)
    assert float(pixels.brightness(IMAGES, PROMPTS)[0]) == pytest.approx(-1 / 3)
    small, large = pixels.incompressible(IMAGES, PROMPTS).tolist()
    assert large > 2 * small
    assert torch.equal(pixels.compressible(IMAGES, PROMPTS), -pixels.incompressible(IMAGES, PROMPTS))


def test_clip_alignment_is_a_cosine_with_a_gradient_to_the_picture(tmp_path: Path):
    terms = Terms(ClipAlignment(backbone=OpenClip(model=clip_folder(tmp_path / "clip"))), "cpu")
    scores = terms(IMAGES, PROMPTS)
    assert scores.shape == (1, 2)
    assert float(scores.abs().max()) <= 1
    images = IMAGES.clone().requires_grad_()
    terms._functions["clip-alignment"](images, PROMPTS).sum().backward()
    assert float(images.grad.abs().sum()) > 0


def test_the_aesthetic_head_reads_the_published_layout(tmp_path: Path):
    head = aesthetic_head(16)
    file = tmp_path / "head.safetensors"
    save_file({f"layers.{key}": value for key, value in head.state_dict().items()}, file)
    clip = OpenClip(model=clip_folder(tmp_path / "clip"))
    terms = Terms(Aesthetic(weights=str(file), backbone=clip), "cpu")
    assert terms(IMAGES, PROMPTS).shape == (1, 2)
    shapes = {
        key: tuple(value.shape) for key, value in aesthetic_head(768).state_dict().items() if "weight" in key
    }
    widths = {"0": (1024, 768), "2": (128, 1024), "4": (64, 128), "6": (16, 64), "7": (1, 16)}
    assert shapes == {f"{layer}.weight": shape for layer, shape in widths.items()}


def test_a_missing_head_says_where_it_is_to_be_had(tmp_path: Path):
    with pytest.raises(StudioError, match="improved-aesthetic-predictor"):
        Terms(Aesthetic(weights=str(tmp_path / "none.pth")), "cpu")


def test_a_mix_is_the_weighted_sum_of_standardized_terms():
    running = Running({"one": 1.0, "two": -2.0})
    raw = torch.tensor([[1.0, 3.0], [10.0, 30.0]])
    torch.testing.assert_close(running(raw), torch.tensor([1.0, -1.0]))


def test_an_unknown_reward_in_a_mix_is_named():
    with pytest.raises(StudioError, match=r"Unknown reward 'rednes'; did you mean 'redness'\?"):
        Terms(Mix(weights={"rednes": 1.0}), "cpu")
    assert set(Terms(Mix(weights={"redness": 1.0, "incompressible": 0.5}), "cpu").weights.values()) == {
        1.0,
        0.5,
    }


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    code = """
import time
def broken(images, prompts): raise KeyError("no such face")
def empty(images, prompts): return images.flatten(1).mean(1) * float("nan")
def wide(images, prompts): return images.flatten(1)
def slow(images, prompts): time.sleep(2)
def fine(images, prompts): return [float(len(p)) for p in prompts]
"""
    (tmp_path / "my_rewards.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("my_rewards", None)
    return "my_rewards"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("broken", r"Reward 'my_rewards:broken' failed \(KeyError: 'no such face'\)"),
        ("empty", r"Reward 'my_rewards:empty' gave nan for picture 0 \('a dog'\)"),
        ("wide", r"Reward 'my_rewards:wide' gave the shape \(2, 3072\); it must give one number a picture"),
        ("slow", r"Reward 'my_rewards:slow' failed \(TimeoutError: it took longer than 0.05 s\)"),
    ],
)
def test_a_broken_reward_is_named(module: str, name: str, message: str):
    terms = Terms(User(function=f"{module}:{name}", seconds=0.05), "cpu")
    with pytest.raises(RunFailed, match=message):
        terms(IMAGES, PROMPTS)


def test_a_function_of_ones_own_is_a_reward(module: str):
    assert Terms(User(function=f"{module}:fine"), "cpu")(IMAGES, PROMPTS).tolist() == [[5.0, 5.0]]


def test_a_function_that_is_not_there_is_refused(module: str):
    with pytest.raises(
        StudioError, match=r"Reward .my_rewards:nothing.: the module has no .nothing.; it defines broken"
    ):
        Terms(User(function=f"{module}:nothing"), "cpu")


def test_pictures_that_are_not_finite_are_not_scored():
    with pytest.raises(RunFailed, match="Decoded pictures are not finite"):
        checked("redness", pixels.redness, IMAGES * float("nan"), PROMPTS)


def test_one_reward_alone_keeps_its_scale():
    terms = Terms(Redness(), "cpu")
    raw = terms(IMAGES, PROMPTS)
    assert torch.equal(Running(terms.weights)(raw), raw[0])
    assert Terms(Incompressible(), "cpu").weights == {"incompressible": 1.0}


def test_a_picture_is_scored_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "counting.py").write_text(
        "calls = []\ndef score(images, prompts):\n    calls.append(len(prompts))\n    return images.mean((1, 2, 3))"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    terms = Terms(User(function="counting:score"), "cpu")
    first = terms(IMAGES, PROMPTS)
    second = terms(torch.cat([IMAGES, IMAGES[:1]]), [*PROMPTS, "another prompt"])
    assert torch.equal(second[:, :2], first)
    assert sys.modules["counting"].calls == [2, 1]


def test_old_scores_are_forgotten():
    seen, judged = Seen(size=2), []

    def judge(images: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
        judged.extend(prompts)
        return torch.zeros(len(prompts))

    for prompt in ("a", "b", "c", "a", "c"):
        seen(judge, "zero", IMAGES[:1], [prompt])
    assert judged == ["a", "b", "c", "a"]
