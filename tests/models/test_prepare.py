"""What the hardware settings switch on."""

import copy
import logging

import pytest
import torch

from studio.backend.core import Backend
from studio.backend.simulated.meter import BLOCK
from studio.backend.simulated.mode import machine
from studio.catalog.families import cards
from studio.contracts.sampling import Request
from studio.models.base import Family
from studio.models.build import load
from studio.models.denoising import Prompts
from studio.models.draw import draw
from studio.models.prepare import prepare
from studio.settings.run import Hardware

ONE = Request(prompts=["a dog"], steps=1)


def test_offloaded_parts_still_draw():
    family = load("tiny:sdxl", Backend(Hardware(device="cpu", precision="fp32", offload=True)))
    assert draw(family, ONE)[0].size == (64, 64)


@pytest.mark.parametrize("name", [name for name, card in cards().items() if card.denoiser == "transformer"])
def test_half_precision_predicts_in_float32_near_the_full_one(name):
    full = load(f"tiny:{name}", Backend(Hardware(device="cpu", precision="fp32")))
    half = load(f"tiny:{name}", Backend(Hardware(device="cpu", precision="bf16")))
    x_t = torch.randn(1, *full.latent_shape(64, 64), generator=torch.Generator().manual_seed(0))
    t = torch.tensor([0.5])
    with torch.no_grad():
        wanted, found = (family.predict(x_t, t, family.embed(["a dog"])) for family in (full, half))
    assert half.denoiser.dtype == torch.bfloat16
    assert found.dtype == torch.float32
    assert (wanted - found).abs().mean() < 0.05 * wanted.abs().mean()


def test_compiling_takes_the_repeated_blocks_only():
    family = load("tiny:flux", Backend(Hardware(device="cpu", precision="fp32", compile=True)))
    compiled = {type(m).__name__ for m in family.denoiser.modules() if m._compiled_call_impl is not None}
    assert compiled == {"FluxTransformerBlock", "FluxSingleTransformerBlock"}


def test_loading_does_not_warn_of_nothing(caplog):
    with caplog.at_level(logging.WARNING):
        load("tiny:sd1", Backend(Hardware(device="cpu", precision="fp32")))
    assert "float32: []" not in caplog.text


def test_what_overflows_in_fp16_stays_in_float32(monkeypatch):
    """No CPU trains in fp16: the backend is told that it does."""
    backend = Backend(Hardware(device="cpu", precision="fp32"))
    for name, card in cards().items():
        family = load(f"tiny:{name}", backend)
        monkeypatch.setattr(backend, "dtype", torch.float16)
        prepare(family, backend)
        monkeypatch.undo()
        kept = {key for key, module in family.modules().items() if module.dtype == torch.float32}
        assert set(card.fp32) <= kept
        assert family.denoiser_name not in kept
        assert ("vae" in kept) == (bool(family.vae.config.get("force_upcast")) or "vae" in card.fp32)


def test_a_copy_of_a_checkpointed_denoiser_holds_no_other_network():
    """An export copies the denoiser around its weights; what it calls for checkpointing led to all of the family's."""
    family = load("tiny:flux", Backend(Hardware(device="cpu", gradient_checkpointing=True)))
    memo = {id(value): value for value in (*family.denoiser.parameters(), *family.denoiser.buffers())}
    copied = dict(memo)
    copy.deepcopy(family.denoiser, copied)
    assert not [value for value in copied.values() if isinstance(value, Family)]


def places(family):
    return {key: next(module.parameters()).device.type for key, module in family.modules().items()}


def test_offloaded_parts_are_cast_without_ever_being_on_the_device():
    with machine() as here:
        family = load("tiny:sdxl", Backend(Hardware(device="simulated", offload=True)))
        assert places(family) == {
            "unet": "simulated",
            "text_encoder": "cpu",
            "text_encoder_2": "cpu",
            "vae": "cpu",
        }
        assert {next(module.parameters()).dtype for module in family.modules().values()} == {torch.bfloat16}
        held = sum(-(-p.numel() * 2 // BLOCK) * BLOCK for p in family.denoiser.parameters())
        assert here.here.highest <= 2.1 * held  # read in fp32 or moved block by block, and no other part


def test_offloaded_parts_come_and_go_and_those_that_are_held_stay():
    with machine():
        family = load("tiny:sdxl", Backend(Hardware(device="simulated", offload=True)))
        assert family.embed(["a dog"]).tokens.device.type == "simulated"
        family.hold("text_encoder")
        assert places(family)["text_encoder"] == "simulated"
        family.embed(["a dog"])
        assert places(family) == {
            "unet": "simulated", "text_encoder": "simulated", "text_encoder_2": "cpu", "vae": "cpu",
        }  # fmt: skip
        with family.present(family.vae):
            family.decode(torch.zeros(1, *family.latent_shape(64, 64)))
            assert places(family)["vae"] == "simulated"  # something around it needs it too
        assert places(family)["vae"] == "cpu"


def test_what_a_gradient_goes_back_through_stays():
    with machine() as here:
        family = load("tiny:sd1", Backend(Hardware(device="simulated", offload=True)))
        latents = torch.zeros(1, *family.latent_shape(64, 64), device=here.device, requires_grad=True)
        family.decode(latents).sum().backward()
        assert places(family)["vae"] == "simulated"
        assert latents.grad is not None


def test_a_denoiser_makes_room_for_captions_and_comes_back_to_work():
    with machine() as here:
        family = load("tiny:flux", Backend(Hardware(device="simulated", offload=True)))
        family.denoiser.norm_out.linear.weight.requires_grad_(True)
        prompts, seen = Prompts(family, trains=False), []
        family.text_encoders["text_encoder_2"].register_forward_pre_hook(
            lambda *_: seen.append(places(family))
        )
        prompts.ready(["a dog", "a cat", "a dog"])
        assert [each["transformer"] for each in seen] == ["cpu", "cpu"]
        assert seen[0]["text_encoder_2"] == "simulated"
        assert family.denoiser.norm_out.linear.weight.device.type == "simulated"  # what trains stays
        latents = torch.zeros(1, *family.latent_shape(64, 64), device=here.device)
        cond = family.with_guidance(prompts(["a cat"]), 1.0)
        family.predict(latents, torch.ones(1, device=here.device), cond)
        assert places(family) == {
            "transformer": "simulated", "text_encoder": "cpu", "text_encoder_2": "cpu", "vae": "cpu",
        }  # fmt: skip
        assert len(seen) == 2


def test_without_offload_nothing_is_embedded_ahead():
    family = load("tiny:sd1", Backend(Hardware(device="cpu", precision="fp32")))
    prompts = Prompts(family, trains=False)
    prompts.ready(["a dog"])
    assert not prompts._kept


@pytest.mark.parametrize("name", sorted(cards()))
def test_blocks_of_every_denoiser_are_compiled(name):
    family = load(f"tiny:{name}", Backend(Hardware(device="cpu", precision="fp32", compile=True)))
    compiled = [part for part in family.denoiser.modules() if part._compiled_call_impl is not None]
    lists = [part for part in family.denoiser.modules() if isinstance(part, torch.nn.ModuleList)]
    assert compiled
    assert all(any(part is block for blocks in lists for block in blocks) for part in compiled)


def test_a_folder_is_simulated_with_its_own_words():
    real = load("studio-tiny", Backend(Hardware(device="cpu", precision="fp32"))).embed(["a dog"])
    with machine():
        family = load("studio-tiny", Backend(Hardware(device="simulated")))
        assert family.embed(["a dog"]).tokens.shape == real.tokens.shape
        assert family.default_size == 64
