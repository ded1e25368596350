"""Adapters of text encoder and denoiser together, without training, as a user loads them; and their files."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from studio.adapters.config import Lora
from studio.adapters.strength import set_strength
from studio.backend.core import Backend
from studio.catalog.run import Run
from studio.commands import use_cases
from studio.console import Console
from studio.models.base import Family
from studio.models.build import load
from studio.rewards.config import Brightness, Redness
from studio.rl.config import Ppo, Rollouts
from studio.settings.run import Hardware, Loop, Optim
from studio.training.train import run_to_end
from studio.weights import artifacts
from trainers.ddpo.config import Ddpo
from trainers.texforce.config import TexForce

CPU = Hardware(device="cpu")
PROMPT = "a dog"
METHODS = {"dogs": TexForce, "cats": TexForce, "unet": Ddpo}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two text encoders and a denoiser, each trained for one step; alpha is not the rank."""
    folder = tmp_path_factory.mktemp("runs")
    found = {}
    for seed, (name, method) in enumerate(METHODS.items()):
        settings: Any = method(
            prompts=(PROMPT,), model="tiny:sd1", reward=Redness(), held_out=Brightness(),
            adapter=Lora(rank=4, alpha=16.0), rollouts=Rollouts(images=2, steps=2), ppo=Ppo(fraction=1.0),
        )  # fmt: skip
        run = Run(
            method=settings, output=str(folder), name=name, seed=seed, hardware=CPU, optim=Optim(lr=0.03),
            loop=Loop(steps=1, batch_size=2),
        )  # fmt: skip
        found[name] = run_to_end(run).path
    return found


def fresh() -> Family:
    return load("tiny:sd1", Backend(CPU))


def drawn(folder: Path, paths: list[Path], strengths: list[float]) -> np.ndarray:
    """What `studio sample` draws."""
    arguments = ["--model", "tiny:sd1", "--prompt", PROMPT, "--steps", "2", "--output", str(folder)]
    arguments += ["--hardware.device", "cpu", "--scheduler", "ddim"]
    if paths:
        arguments += ["--artifact", *map(str, paths), "--strength", *map(str, strengths)]
    use_cases.sample(arguments, Console(silent=True))
    (picture,) = folder.glob("0*.png")
    return np.asarray(Image.open(picture)).astype(int)


def test_strengths_are_independent_and_0_is_the_base_model(runs: dict[str, Path], tmp_path: Path):
    both = [runs["dogs"], runs["unet"]]
    pictures = {
        strengths: drawn(tmp_path / str(number), both, list(strengths))
        for number, strengths in enumerate([(0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0), (1.0, 0.5)])
    }
    np.testing.assert_array_equal(pictures[0.0, 0.0], drawn(tmp_path / "base", [], []))
    np.testing.assert_array_equal(pictures[1.0, 0.0], drawn(tmp_path / "text", both[:1], [1.0]))
    np.testing.assert_array_equal(pictures[0.0, 1.0], drawn(tmp_path / "unet", both[1:], [1.0]))
    different = [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0), (1.0, 0.5)]
    assert len({pictures[one].tobytes() for one in different}) == len(different)


def test_loaded_together_they_are_both_attached(runs: dict[str, Path]):
    alone, both = {}, fresh()
    for name in ("dogs", "unet"):
        alone[name] = fresh()
        artifacts.load(runs[name], alone[name], 1.0, name)
        artifacts.load(runs[name], both, 1.0, name)
    cond = alone["dogs"].embed([PROMPT])
    assert torch.equal(both.embed([PROMPT]).tokens, cond.tokens)
    x, t = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([0.5])
    with torch.no_grad():
        assert torch.equal(both.predict(x, t, cond), alone["unet"].predict(x, t, cond))


def outputs(family: Family) -> dict[str, torch.Tensor]:
    """What every attention projection of the text encoder makes of one input."""
    x = torch.randn(3, 32, generator=torch.Generator().manual_seed(0))
    found = family.text_encoders["text_encoder"].named_modules()
    with torch.no_grad():
        return {
            name: layer(x)
            for name, layer in found
            if name.endswith(("q_proj", "k_proj", "v_proj", "out_proj"))
        }


def test_text_adapters_mix_as_the_weighted_sum_of_their_changes(runs: dict[str, Path]):
    base, mixed, strengths = fresh(), fresh(), {"dogs": 0.7, "cats": 0.3}
    alone = {name: fresh() for name in strengths}
    for name, strength in strengths.items():
        artifacts.load(runs[name], alone[name], 1.0, name)
        artifacts.load(runs[name], mixed, strength, name)
    plain, changed = outputs(base), {name: outputs(family) for name, family in alone.items()}
    assert len(plain) == 12
    for key, found in outputs(mixed).items():
        expected = plain[key] + sum(s * (changed[name][key] - plain[key]) for name, s in strengths.items())
        assert not torch.allclose(found, plain[key])
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    for name in strengths:
        set_strength(mixed.modules(), name, 0.0)
    assert torch.equal(mixed.embed([PROMPT]).tokens, base.embed([PROMPT]).tokens)


def test_files_with_alpha_other_than_rank_read_back_to_the_bit(runs: dict[str, Path]):
    files = sorted((runs["dogs"] / "export").glob("*.safetensors"))
    assert len(files) == 2
    found = []
    for file in files:
        family = fresh()
        artifacts.load(file, family)
        found.append(family.embed([PROMPT]).tokens)
    assert torch.equal(*found)
    assert not torch.equal(found[0], fresh().embed([PROMPT]).tokens)


def test_diffusers_alone_reads_the_file_as_we_do(runs: dict[str, Path]):
    ours, theirs = fresh(), fresh()
    artifacts.load(runs["dogs"], ours)
    pipeline = theirs.pipeline()
    pipeline.load_lora_weights(str(runs["dogs"] / "export"), weight_name="pytorch_lora_weights.safetensors")
    ids = pipeline.tokenizer([PROMPT], padding="max_length", max_length=77, return_tensors="pt").input_ids
    with torch.no_grad():
        assert torch.equal(
            pipeline.text_encoder(ids).last_hidden_state,
            ours.text_encoders["text_encoder"](ids).last_hidden_state,
        )
