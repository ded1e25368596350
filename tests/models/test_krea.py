"""Krea 2: what tells its variants apart, its shift, its template's end, its names in files."""

import numpy as np
import pytest
import torch
from diffusers.loaders.lora_conversion_utils import _convert_non_diffusers_krea2_lora_to_diffusers

from studio.adapters.formats import to_comfy
from studio.adapters.updates import LowRank, Update
from studio.catalog.recognize import recognize
from studio.models.build import load
from tests.models.published import PUBLISHED, shrunk

REAL = pytest.mark.skipif(not PUBLISHED.is_dir(), reason="the published files are not here")
THIN_VL3 = {
    "text_config": {
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "rope_scaling": {"rope_type": "default", "mrope_interleaved": True, "mrope_section": [4, 2, 2]},
    },
    "vision_config": {
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_heads": 2,
        "out_hidden_size": 32,
        "deepstack_visual_indexes": [1],
    },
}
THIN_KREA = {
    "transformer": {
        "num_layers": 1,
        "num_attention_heads": 1,
        "num_key_value_heads": 1,
        "intermediate_size": 32,
        "text_hidden_dim": 32,
        "text_num_attention_heads": 2,
        "text_num_key_value_heads": 2,
        "text_intermediate_size": 32,
    },
    "vae": {"base_dim": 4, "num_res_blocks": 1},
    "text_encoder": THIN_VL3,
}


@REAL
@pytest.mark.parametrize(("folder", "name"), [("Krea-2-Raw", "krea2"), ("Krea-2-Turbo", "krea2-turbo")])
def test_what_is_distilled_tells_the_variants_of_krea_apart(folder, name):
    assert recognize(str(PUBLISHED / "krea2" / folder)).variant.name == name


def test_the_distilled_krea_is_shifted_alike_at_every_size(families, backend):
    """Sigmas as its pipeline asks the scheduler for them."""
    raw = families["krea2"]
    parts = raw.pipeline()
    parts.register_to_config(is_distilled=True)
    turbo = type(raw)(parts, backend)
    small, large = (turbo.scheduler("", 8, height=side, width=side).sigmas for side in (64, 2048))
    assert torch.equal(small, large)
    scheduler = type(parts.scheduler).from_config(parts.scheduler.config)
    scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / 8, 8), mu=1.15)
    assert torch.equal(small, scheduler.sigmas)
    assert not torch.equal(raw.scheduler("", 8, height=64, width=64).sigmas, small)


def test_a_long_prompt_of_krea_keeps_the_end_of_the_template_as_the_pipeline_does(families, caplog):
    family = families["krea2"]
    with torch.no_grad():
        ours = family.embed(["zx" * 300, "a dog"])
        theirs, mask = family.pipeline().get_text_hidden_states(
            ["zx" * 300, "a dog"], max_sequence_length=512
        )
    assert "is cut to" in caplog.text
    assert ours.extra["mask"].sum(1).tolist() == mask.sum(1).tolist()
    for row in range(2):
        torch.testing.assert_close(
            ours.tokens[row][ours.extra["mask"][row]], theirs[row][mask[row]].flatten(1)
        )


def test_diffusers_reads_the_names_that_comfy_files_give_krea(families):
    """Its converter maps the original names; it spells the factors as PEFT does."""
    family = families["krea2"]
    ends = ("attn.to_q", "attn.to_out.0", "attn.to_gate", "ff.gate", "ff.down")
    blocks = ("transformer_blocks.1", "text_fusion.layerwise_blocks.0", "text_fusion.refiner_blocks.0")
    layers = [f"{block}.{end}" for block in blocks for end in ends] + [*family.card.names.top]
    low = {layer: Update(LowRank(torch.randn(2, 3), torch.randn(4, 2), alpha=2.0)) for layer in layers}
    written = to_comfy({"transformer": low}, family.card, {"transformer": family.denoiser})
    spelled = {
        key.replace("lora_down", "lora_A").replace("lora_up", "lora_B"): value
        for key, value in written.items()
        if not key.endswith(".alpha")
    }
    read = _convert_non_diffusers_krea2_lora_to_diffusers(spelled)
    assert {key.removeprefix("transformer.").rsplit(".lora_", 1)[0] for key in read} == set(layers)
    assert all(
        torch.equal(read[f"transformer.{layer}.lora_A.weight"], one.additive.down)
        for layer, one in low.items()
    )


@REAL
def test_a_folder_of_the_published_files_loads_and_predicts(tmp_path, backend):
    family = load(str(shrunk("krea2/Krea-2-Turbo", tmp_path / "model", THIN_KREA)), backend)
    assert (family.name, family.variant.name, family.default_size) == ("krea2", "krea2-turbo", 1024)
    cond = family.embed(["a photo of sks dog", "the cat"])
    assert cond.tokens.shape[1:] == (5 + 6, 12 * 32)
    latents = torch.randn(2, *family.latent_shape(64, 64))
    with torch.no_grad():
        assert torch.isfinite(family.predict(latents, torch.full((2,), 0.5), cond)).all()
