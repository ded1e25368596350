"""Qwen-Image-2.1: its attention in one call, prompts of different length, its autoencoder of four channels."""

import pytest
import torch
from diffusers.models.transformers.transformer_qwenimage21 import QwenImage21AttnProcessor
from transformers import AutoTokenizer

from studio.errors import StudioError
from studio.models.build import load
from studio.models.families.qwen_image.model import AFTER
from studio.models.families.qwen_image_21.model import SYSTEM, USER
from studio.models.sets import Coupling, coupling
from tests.models.published import PUBLISHED, shrunk, whole
from tests.models.test_krea import THIN_VL3

REAL = pytest.mark.skipif(not PUBLISHED.is_dir(), reason="the published files are not here")
THIN = {
    "transformer": {"num_layers": 1, "num_attention_heads": 1, "context_in_dim": 32},
    "vae": {"base_dim": 4, "decoder_base_dim": 4, "num_res_blocks": 1},
    "text_encoder": {**THIN_VL3, "text_config": {**THIN_VL3["text_config"], "num_hidden_layers": 2}},
}


@pytest.fixture
def family(families):
    return families["qwen-image-2.1"]


def test_one_call_of_attention_is_the_librarys_calls_by_blocks(family):
    x_t, t = torch.randn(2, *family.latent_shape(64, 64)), torch.full((2,), 0.4)
    cond = family.embed(["a dog", "the big cat"])
    blocks = list(family.denoiser.transformer_blocks)
    own = [block.attn.processor for block in blocks]
    with torch.no_grad():
        ours = family.predict(x_t, t, cond)
        for block in blocks:
            block.attn.set_processor(QwenImage21AttnProcessor())
        theirs = family.predict(x_t, t, cond)
    for block, processor in zip(blocks, own, strict=True):
        block.attn.set_processor(processor)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def test_a_prompt_is_read_alike_beside_a_longer_one(family):
    x_t, t = torch.randn(2, *family.latent_shape(64, 64)), torch.full((2,), 0.4)
    with torch.no_grad():
        both = family.predict(x_t, t, family.embed(["a dog", "the big cat on the moon"]))
        torch.testing.assert_close(
            both[:1], family.predict(x_t[:1], t[:1], family.embed(["a dog"])), atol=1e-5, rtol=1e-4
        )


def test_attention_over_prompts_of_different_length_is_refused(family):
    x_t, t = torch.randn(2, *family.latent_shape(64, 64)), torch.full((2,), 0.4)
    with torch.no_grad(), coupling(family, Coupling(2, axis=family.spare_axis)):
        family.predict(x_t, t, family.embed(["a dog", "a cat"]))
        with pytest.raises(StudioError, match="reads prompts of different length apart"):
            family.predict(x_t, t, family.embed(["a dog", "the big cat"]))


def test_pictures_are_encoded_opaque_as_the_pipeline_encodes_them(family):
    images = torch.rand(2, 3, 64, 64) * 2 - 1
    opaque = torch.cat([images, torch.ones(2, 1, 64, 64)], dim=1)
    with torch.no_grad():
        theirs = family.pipeline()._encode_vae_image(opaque.unsqueeze(2), generator=None)
        assert torch.equal(family.encode(images), theirs[:, :, 0])


@REAL
def test_the_real_tokenizer_ends_the_dropped_rows_where_the_system_message_ends(tmp_path):
    whole("qwen-image/Qwen-Image-2.1/processor", tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    message = [
        {
            "role": "system",
            "content": [{"type": "text", "text": "Comprehend and analyze the provided prompt."}],
        }
    ]
    dropped = tokenizer.apply_chat_template(message, tokenize=True, return_dict=False)
    ids = tokenizer(f"{SYSTEM}{USER}a photo of sks dog{AFTER}").input_ids
    assert ids[: len(dropped)] == dropped == tokenizer(SYSTEM).input_ids


@REAL
def test_a_folder_of_the_published_files_loads_and_predicts(tmp_path, backend):
    family = load(str(shrunk("qwen-image/Qwen-Image-2.1", tmp_path / "model", THIN)), backend)
    assert (family.variant.name, family.default_size, family.vae_scale) == ("qwen-image-2.1", 1024, 16)
    with torch.no_grad():
        cond = family.embed(["a photo of sks dog", ""])
        found = family.predict(torch.randn(2, *family.latent_shape(64, 64)), torch.full((2,), 0.5), cond)
    assert torch.isfinite(found).all()
