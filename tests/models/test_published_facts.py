"""What is odd about the published files, and would break a trainer that does not know."""

import json

import numpy as np
import pytest
import torch
from transformers import T5Config, T5EncoderModel

from studio.backend.core import Backend, _precision
from studio.backend.precision import kept_exact
from studio.catalog import families as catalog
from studio.diffusion.process import Flow
from studio.errors import StudioError
from studio.models.architecture import component
from studio.models.base import card_of
from studio.models.build import load
from studio.models.chain import discrete_process
from studio.models.codecs import codec_of
from studio.models.schedulers import make_scheduler
from studio.settings.run import Hardware

CPU = Hardware(device="cpu", precision="fp32")
VARIANTS = {variant.name: (card, variant) for card, variant in catalog.variants()}
FLOW = [name for name, (card, _) in VARIANTS.items() if card.process == "flow"]
CHAIN = [name for name, (card, _) in VARIANTS.items() if card.process == "discrete"]


def scheduler_of(name):
    return component(VARIANTS[name][1].architecture["scheduler"])


def shifted(shift, times):
    return shift * times / (1 + (shift - 1) * times)


def half(backend):
    """A backend as on a GPU in fp16, which a CPU's is not asked to be."""
    backend.dtype, backend.precision = torch.float16, "fp16"
    return backend


def test_weights_of_two_precisions_come_to_one():
    """Fact 3: SDXL's second text encoder says float16 in its settings; built from them, it has both."""
    module = torch.nn.Sequential(torch.nn.Linear(2, 2).half(), torch.nn.Linear(2, 2))
    assert {p.dtype for p in Backend(CPU).place(module).parameters()} == {torch.float32}


def test_a_folder_whose_settings_name_a_precision_loads_in_the_runs(tmp_path):
    """Fact 3, in a folder; fact 20: settings that name the authors' disk, an index that names no library."""
    pipeline = load("tiny:sdxl", Backend(CPU)).pipeline()
    pipeline.save_pretrained(tmp_path, safe_serialization=True)
    file = tmp_path / "text_encoder_2" / "config.json"
    odd = {"torch_dtype": "float16", "dtype": "float16", "_name_or_path": "/home/author/sdxl"}
    file.write_text(json.dumps(json.loads(file.read_text()) | odd))
    found = load(str(tmp_path), Backend(CPU)).text_encoders["text_encoder_2"]
    assert {p.dtype for p in found.parameters()} == {torch.float32}


def test_an_index_may_name_a_part_of_no_library(tmp_path):
    """Fact 20: `safety_checker` of `stable_diffusion`, whose folder need not be there."""
    load("tiny:sd1", Backend(CPU)).pipeline().save_pretrained(tmp_path, safe_serialization=True)
    file = tmp_path / "model_index.json"
    listed = json.loads(file.read_text()) | {
        "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
        "feature_extractor": ["transformers", "CLIPImageProcessor"],
    }
    file.write_text(json.dumps(listed))
    assert load(str(tmp_path), Backend(CPU)).name == "sd1"


@pytest.mark.parametrize("name", FLOW)
def test_times_of_training_are_shifted_once(name):
    """Fact 9: with dynamic shifting, `shift` does nothing at construction; without, sigmas are shifted already."""
    card, _ = VARIANTS[name]
    scheduler = scheduler_of(name)
    base = scheduler.config
    dynamic = bool(base.get("use_dynamic_shifting"))
    own = card.schedule.training_shift
    wanted = own if own is not None else 1.0 if dynamic else base.get("shift", 1.0)
    family = load(f"tiny:{card.name}", Backend(CPU))
    family.scheduler_base = scheduler
    process, kind = family._noise()
    assert kind == "flow"
    assert isinstance(process, Flow)
    assert process.shift == pytest.approx(wanted)
    if hasattr(scheduler, "sigmas") and own is None:
        assert float(scheduler.sigmas[500]) == pytest.approx(shifted(wanted, 0.5), abs=2e-3)


@pytest.mark.parametrize("name", FLOW)
def test_levels_of_drawing_are_shifted_once(name):
    """Facts 9 and 10: linspace(1, 1/n, n), or n levels of the library's own, under one shift; by mu where it is dynamic."""
    card, _ = VARIANTS[name]
    base = scheduler_of(name).config
    dynamic = bool(base.get("use_dynamic_shifting"))
    found = make_scheduler(
        base, "", 4, prediction="flow", mu=0.8 if dynamic else None, unit=card.schedule.sigmas == "unit"
    )
    sigmas = np.asarray(found.sigmas[:-1], dtype=float)
    assert sigmas[0] == pytest.approx(1.0, abs=2e-3)
    assert (np.diff(sigmas) < 0).all()
    if card.schedule.sigmas == "unit" and not base.get("shift_terminal"):
        shift = np.exp(0.8) if dynamic else base.get("shift", 1.0)
        assert sigmas == pytest.approx(shifted(shift, np.linspace(1, 0.25, 4)), abs=1e-3)


@pytest.mark.parametrize("name", CHAIN)
def test_what_a_network_predicts_is_read_from_its_scheduler(name):
    """Fact 13: `prediction_type` is absent in SD 1.5 (noise), velocity in SD 2.1."""
    _, kind = discrete_process(scheduler_of(name))
    stated = VARIANTS[name][1].architecture["scheduler"].config.get("prediction_type", "epsilon")
    assert kind == {"epsilon": "eps", "v_prediction": "v"}[stated]


def test_sd15_says_nothing_of_what_it_predicts_and_sd21_velocity():
    kinds = {name: discrete_process(scheduler_of(name))[1] for name in ("sd15", "sd21", "sdxl")}
    assert kinds == {"sd15": "eps", "sd21": "v", "sdxl": "eps"}


@pytest.mark.parametrize("name", VARIANTS)
def test_a_latent_has_the_scale_and_channels_that_the_codec_says(name):
    """Facts 14 to 16: no `scaling_factor`, no `block_out_channels`, or neither; measured by encoding."""
    with torch.device("meta"):
        vae = component(VARIANTS[name][1].architecture["vae"])
        codec = codec_of(vae)
        side = 4 * codec.scale
        moments = codec.moments(torch.zeros(1, 3, side, side))
    assert moments.mean.shape == moments.std.shape == (1, codec.channels, 4, 4)


def test_the_largest_values_of_t5_survive_fp16():
    """`wo` overflows in fp16: transformers keeps it in float32 when it loads, and so does placing."""
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=8, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, feed_forward_proj="gated-gelu"
    )
    encoder = T5EncoderModel(config).eval()
    block = encoder.encoder.block[0].layer[1].DenseReluDense
    with torch.no_grad():
        for layer in (block.wi_0, block.wi_1, block.wo):
            layer.weight.fill_(20.0)
        exact = encoder(torch.tensor([[1, 2]]))[0]
    backend = half(Backend(CPU))
    placed = backend.place(encoder)
    assert block.wo.weight.dtype == torch.float32
    assert block.wi_0.weight.dtype == torch.float16
    said = []
    block.wo.register_forward_hook(lambda _layer, _given, output: said.append(output))
    with torch.no_grad():
        found = placed(torch.tensor([[1, 2]]))[0]
    assert said[0].abs().max() > torch.finfo(torch.float16).max
    assert torch.isfinite(said[0]).all()
    torch.testing.assert_close(found.float(), exact, atol=2e-2, rtol=2e-2)


def test_what_stays_exact_is_not_rounded_on_the_way():
    module = T5EncoderModel(T5Config(vocab_size=8, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2))
    before = {name: value.clone() for name, value in module.named_parameters() if ".wo." in name}
    assert before
    half(Backend(CPU)).place(module)
    assert all(torch.equal(module.get_parameter(name), value) for name, value in before.items())
    assert not dict(kept_exact(module, torch.bfloat16))
    assert not dict(kept_exact(module, torch.float32))


def test_an_autoencoder_that_says_so_stays_in_float32_in_fp16():
    family = load("tiny:sdxl", half(Backend(CPU)))
    assert family.vae.config.force_upcast
    assert family.vae.dtype == torch.float32
    assert family.denoiser.dtype == torch.float16


@pytest.mark.parametrize(("emulated", "hardware", "wanted"), [(True, False, "fp32"), (True, True, "bf16")])
def test_bf16_is_taken_where_the_gpu_has_it_in_hardware(monkeypatch, emulated, hardware, wanted):
    monkeypatch.setattr(
        torch.cuda,
        "is_bf16_supported",
        lambda including_emulation=True: emulated if including_emulation else hardware,
    )
    assert _precision("auto", torch.device("cuda")) == wanted


def test_a_pipeline_for_inpainting_is_refused_by_its_class():
    """Fact 17: its U-Net reads nine channels."""
    pipeline = load("tiny:sd1", Backend(CPU)).pipeline()
    inpainting = type("StableDiffusionInpaintPipeline", (type(pipeline),), {})
    pipeline.__class__ = inpainting
    with pytest.raises(StudioError, match="Unknown kind of pipeline 'StableDiffusionInpaintPipeline'"):
        card_of(pipeline)
