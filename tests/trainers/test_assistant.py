"""An assistant acts in the loss and nowhere else."""

import dataclasses
from pathlib import Path

import pytest
import torch
from diffusers import FluxPipeline
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file

from studio.adapters.config import Full, Lora
from studio.adapters.strength import ASSISTANT, assisting, detached
from studio.adapters.verify import ask
from studio.backend.core import Backend
from studio.catalog.run import Run
from studio.diffusion.config import Denoising
from studio.errors import StudioError
from studio.models.build import load
from studio.same_subject.config import NoPrior
from studio.settings.run import Hardware, Loop
from studio.testing import photos
from studio.training import checkpoint
from studio.training.train import resume, run_to_end, train
from studio.weights import artifacts
from studio.weights.assistant import assisted
from trainers.dreambooth.config import DreamBooth

CPU = Hardware(device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def lora(tmp_path_factory) -> str:
    """A random LoRA of the tiny FLUX.1, written by diffusers."""
    folder = tmp_path_factory.mktemp("assistant")
    transformer = load("tiny:flux", Backend(CPU)).denoiser
    torch.manual_seed(1)
    transformer.add_adapter(
        LoraConfig(r=4, target_modules=["to_q", "to_v", "ff.net.2"], init_lora_weights=False)
    )
    FluxPipeline.save_lora_weights(str(folder), get_peft_model_state_dict(transformer))
    return str(folder / "pytorch_lora_weights.safetensors")


def settings(tmp_path: Path, lora: str, **changes) -> Run:
    data = tmp_path / "photos"
    if not data.exists():
        photos(data)
    method = DreamBooth(
        data=str(data), model="tiny:flux", token="sks", class_word="dog", adapter=Lora(rank=2, layers="blocks"),
        prior=NoPrior(), denoising=Denoising(assistant=lora),
    )  # fmt: skip
    method = dataclasses.replace(method, **changes)
    loop = Loop(steps=2, batch_size=2, log_every=1)
    return Run(method=method, output=str(tmp_path / "runs"), hardware=CPU, loop=loop)


def predicted(family, lora_on: bool):
    latents = torch.randn(1, *family.latent_shape(64, 64), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        cond = family.embed(["a dog"])
        if not lora_on:
            return family.predict(latents, torch.tensor([0.5]), cond)
        with family.backend.learning():
            return family.predict(latents, torch.tensor([0.5]), cond)


def test_it_acts_while_a_loss_is_computed_and_at_no_other_time(lora):
    base = load("tiny:flux", Backend(CPU))
    usual = load("tiny:flux", Backend(CPU))
    artifacts.load(lora, usual)
    family = assisted(load("tiny:flux", Backend(CPU)), Denoising(assistant=lora))
    assert torch.equal(predicted(family, lora_on=False), predicted(base, lora_on=False))
    torch.testing.assert_close(predicted(family, lora_on=True), predicted(usual, lora_on=False))
    assert not torch.allclose(predicted(usual, lora_on=False), predicted(base, lora_on=False), atol=1e-3)
    assert torch.equal(predicted(family, lora_on=False), predicted(base, lora_on=False))
    assert not any(value.requires_grad for value in family.denoiser.parameters())


def test_the_base_of_a_loss_has_it_too(lora):
    family = assisted(load("tiny:flux", Backend(CPU)), Denoising(assistant=lora))
    with_it = predicted(family, lora_on=True)
    with assisting(family.denoiser), detached({"transformer": family.denoiser}):
        assert torch.equal(predicted(family, lora_on=False), with_it)
    with detached({"transformer": family.denoiser}):
        assert not torch.allclose(predicted(family, lora_on=False), with_it, atol=1e-3)


def test_a_run_resumes_exactly_and_exports_without_it(lora, tmp_path):
    run = settings(tmp_path, lora)
    whole = run_to_end(dataclasses.replace(run, name="whole"))
    events = train(dataclasses.replace(run, name="halves"))
    assert any(event["event"] == "step" for event in events)
    events.close()
    list(resume(tmp_path / "runs" / "halves"))
    plain = run_to_end(dataclasses.replace(settings(tmp_path, ""), name="plain"))
    kept = [tensors_of(folder) for folder in (whole.path, tmp_path / "runs" / "halves", plain.path)]
    assert kept[0].keys() == kept[1].keys()
    assert not [key for key in kept[0] if ASSISTANT in key]
    assert all(torch.equal(kept[0][key], kept[1][key]) for key in kept[0])
    assert any(not torch.equal(kept[0][key], kept[2][key]) for key in kept[0])
    assert lora in whole.config.read_text()
    fresh = load("tiny:flux", Backend(CPU))
    artifacts.load(whole.path, fresh)
    base = load("tiny:flux", Backend(CPU))
    assert 0 < ask(base, {}).difference(ask(fresh, {})) < 0.05


def tensors_of(folder: Path):
    newest = checkpoint.latest(folder / "checkpoints")
    return {
        f"{file.name}:{key}": value
        for file in sorted(newest.glob("*.safetensors"))
        for key, value in load_file(file).items()
    }


def test_whole_finetuning_and_a_missing_file_are_refused(lora, tmp_path):
    with pytest.raises(StudioError, match="taken off again from under an adapter"):
        list(train(settings(tmp_path, lora, adapter=Full())))
    with pytest.raises(StudioError, match="does not exist"):
        list(train(settings(tmp_path, "nowhere.safetensors")))
