"""The families that read with a Qwen: templates, autoencoders, guidance, and folders of the published files."""

import pytest
import torch
from diffusers import QwenImageEditPlusPipeline
from transformers import AutoTokenizer

from studio.backend.rng import Rng
from studio.diffusion.config import Denoising
from studio.diffusion.guidance import Guidance, keep_norm
from studio.errors import StudioError
from studio.models.build import load
from studio.models.denoising import add_noise, errors
from studio.models.families.qwen_image.model import TEMPLATE
from studio.models.packing import pack
from studio.models.templated import templated
from studio.models.text import EOS, PAD, WORD
from studio.settings.sampling import Text
from tests.models.published import PUBLISHED, shrunk

SETTINGS = {
    "text_config": {
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "layer_types": ["full_attention"] * 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "rope_scaling": {"rope_type": "default", "type": "default", "mrope_section": [2, 3, 3]},
    },
    "vision_config": {
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_heads": 2,
        "out_hidden_size": 32,
        "fullatt_block_indexes": [1],
    },
}
THIN_VAE = {"base_dim": 4, "num_res_blocks": 1}
THIN = {
    "transformer": {"num_layers": 1, "num_attention_heads": 1, "joint_attention_dim": 32},
    "vae": THIN_VAE,
    "text_encoder": SETTINGS,
}
WIDTHS = {"qwen-image": ("qwen-image/Qwen-Image", THIN)}
"""Published folders, and the widths of their networks here."""
REAL = pytest.mark.skipif(not PUBLISHED.is_dir(), reason="the published files are not here")


@REAL
@pytest.mark.parametrize("name", WIDTHS)
def test_a_folder_of_the_published_files_loads_and_predicts(name, tmp_path, backend):
    folder = shrunk(WIDTHS[name][0], tmp_path / "model", WIDTHS[name][1])
    family = load(str(folder), backend)
    assert (family.name, family.variant.name) == (name, name)
    cond = family.embed(["a photo of sks dog", "the cat"])
    with torch.no_grad():
        prediction = family.predict(torch.randn(2, *family.latent_shape(64, 64)), torch.full((2,), 0.5), cond)
    assert torch.isfinite(prediction).all()
    assert family.default_size == family.variant.size


@REAL
def test_the_real_tokenizer_reads_as_many_rows_before_the_prompt_as_are_dropped(tmp_path):
    """What is left is the prompt, in the numbers of the published table, and what stands after it."""
    shrunk("qwen-image/Qwen-Image", tmp_path, {})
    found = templated(
        AutoTokenizer.from_pretrained(tmp_path / "tokenizer"), ["a photo of sks dog"], TEMPLATE, 512
    )
    assert found.ids[0, TEMPLATE.dropped :].tolist() == [
        64,
        6548,
        315,
        1901,
        82,
        5562,
        151645,
        198,
        151644,
        77091,
        198,
    ]


def test_the_tiny_tokenizer_reads_the_template_as_the_real_one(families):
    tokenizer = families["qwen-image"].tokenizers["tokenizer"]
    assert len(tokenizer(TEMPLATE.before).input_ids) == TEMPLATE.dropped
    assert len(tokenizer(TEMPLATE.after).input_ids) == 5


def test_kinds_tell_the_prompt_from_the_template_and_padding(families):
    extra = families["qwen-image"].embed(["ab", "zx"[:1]]).extra
    assert extra["kinds"].tolist() == [[WORD] * 2 + [EOS] * 5, [WORD] + [EOS] * 5 + [PAD]]
    assert extra["mask"].tolist() == [[True] * 7, [True] * 6 + [False]]


def test_a_prompt_beyond_the_length_is_cut_with_a_warning(families, caplog):
    family = families["qwen-image"]
    assert family.embed(["zx" * 300]).tokens.shape[1] == family.card.words.length
    assert "A prompt of 600 tokens is cut to 512" in caplog.text


def test_weights_of_words_are_refused_and_brackets_stay_where_they_are_not_read(families, backend):
    family = families["qwen-image"]
    reading = type(family)(family.pipeline(), backend, Text(weights=True))
    with pytest.raises(StudioError, match="a chat model, which has no weights of words"):
        reading.embed(["a (red:1.3) dog"])
    assert family.embed(["a (red:1.3) dog"]).tokens.shape[1] > 0


def test_guidance_keeps_the_length_of_each_token(families):
    """Against the pipeline's lines, written out over packed tokens."""
    cond, uncond = torch.randn(2, 2, 16, 8, 8).unbind()
    found = pack(families["qwen-image"].guide(cond, uncond, Guidance(4.0)))
    combined = pack(uncond) + 4.0 * (pack(cond) - pack(uncond))
    wanted = combined * (
        torch.norm(pack(cond), dim=-1, keepdim=True) / torch.norm(combined, dim=-1, keepdim=True)
    )
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(found.norm(dim=-1), pack(cond).norm(dim=-1))
    assert torch.equal(keep_norm(pack(cond), pack(cond)), pack(cond))


def test_pictures_are_encoded_as_the_pipeline_encodes_them(families):
    """The pipelines that look at pictures have the encoding: the mode, less the mean, over the deviation."""
    family = families["qwen-image"]
    images = torch.rand(2, 3, 64, 64) * 2 - 1
    pipeline = QwenImageEditPlusPipeline(**family.pipeline().components, processor=None)
    with torch.no_grad():
        theirs = pipeline._encode_vae_image(images.unsqueeze(2), generator=None)
        assert torch.equal(family.encode(images), theirs[:, :, 0])
        mean, std = family.moments(images)
        plain = family.vae.encode(images.unsqueeze(2)).latent_dist
    scale = torch.tensor(family.vae.config.latents_std).reshape(1, -1, 1, 1)
    torch.testing.assert_close(std * scale, plain.std[:, :, 0])
    assert torch.equal(
        family.encode(images, Rng.single(0, 0, 2)), mean + std * Rng.single(0, 0, 2).normal(*mean.shape)
    )


def test_the_loss_is_that_of_flow_matching_with_the_network_called_as_the_pipeline_calls_it(families):
    family = families["qwen-image"]
    latents = torch.randn(2, 16, 8, 8)
    rng = Rng.single(3, 0, 2)
    noised = add_noise(family, latents, rng, Denoising())
    cond = family.embed(["a dog", "the big cat"])
    eps = (noised.x_t - (1 - noised.t.view(-1, 1, 1, 1)) * latents) / noised.t.view(-1, 1, 1, 1)
    with torch.no_grad():
        ours = errors(family, family.predict(noised.x_t, noised.t, cond), noised, Denoising())
        theirs = family.denoiser(
            hidden_states=pack(noised.x_t),
            timestep=noised.t,
            encoder_hidden_states=cond.tokens,
            encoder_hidden_states_mask=cond.extra["mask"],
            img_shapes=[[(1, 4, 4)]] * 2,
            return_dict=False,
        )[0]
    torch.testing.assert_close(
        ours, (theirs - pack(eps - latents)).square().mean(dim=(1, 2)), atol=1e-4, rtol=1e-4
    )


def test_training_draws_times_shifted_as_the_trainers_do(families):
    """A uniform u becomes s u / (1 + (s - 1) u), whatever the scheduler's inert `shift` says."""
    family = families["qwen-image"]
    assert family.process.shift == family.card.schedule.training_shift == 2.2
    assert family.scheduler_base.config.shift == 1.0
