"""The families that read with a Qwen: templates, autoencoders, guidance, and folders of the published files."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import QwenImageEditPlusPipeline
from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit_plus as edit_plus
from PIL import Image
from transformers import AutoTokenizer

from studio.backend.rng import Rng
from studio.catalog.families import by_name as families_by_name
from studio.contracts.sampling import Request
from studio.diffusion.config import Denoising
from studio.diffusion.guidance import Guidance, keep_norm
from studio.errors import StudioError
from studio.models.build import load
from studio.models.denoising import add_noise, errors
from studio.models.draw import drawing, start_noise
from studio.models.families.qwen_image.model import AFTER, BEFORE
from studio.models.families.qwen_image_edit.model import BEFORE as BEFORE_EDIT
from studio.models.packing import pack
from studio.models.text import EOS, PAD, WORD
from tests.models.asking import SIZE
from tests.models.published import PUBLISHED, shrunk, whole

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
WIDTHS = {
    "qwen-image": ("qwen-image/Qwen-Image", THIN),
    "qwen-image-edit": ("qwen-image/Qwen-Image-Edit-2509", THIN),
}
"""Published folders, and the widths of their networks here."""
REAL = pytest.mark.skipif(not PUBLISHED.is_dir(), reason="the published files are not here")


@REAL
@pytest.mark.parametrize("name", WIDTHS)
def test_a_folder_of_the_published_files_loads_and_predicts(name, tmp_path, backend):
    folder = shrunk(WIDTHS[name][0], tmp_path / "model", WIDTHS[name][1])
    family = load(str(folder), backend)
    card, variant = families_by_name(name)
    assert (family.name, family.variant) == (card.name, variant)
    cond = family.embed(["a photo of sks dog", "the cat"])
    with torch.no_grad():
        prediction = family.predict(torch.randn(2, *family.latent_shape(64, 64)), torch.full((2,), 0.5), cond)
    assert torch.isfinite(prediction).all()
    assert family.default_size == family.variant.size


TEMPLATES = {"qwen-image": (BEFORE, 34), "qwen-image-edit": (BEFORE_EDIT, 64)}


@REAL
@pytest.mark.parametrize("name", TEMPLATES)
def test_the_real_tokenizer_reads_as_many_rows_before_the_prompt_as_are_dropped(name, tmp_path):
    """What is left is the prompt, in the numbers of the published table, and what stands after it."""
    before, dropped = TEMPLATES[name]
    whole(f"{WIDTHS[name][0]}/tokenizer", tmp_path)
    ids = AutoTokenizer.from_pretrained(tmp_path)(f"{before}a photo of sks dog{AFTER}").input_ids
    assert ids[dropped:] == [64, 6548, 315, 1901, 82, 5562, 151645, 198, 151644, 77091, 198]


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_tiny_tokenizer_reads_the_template_as_the_real_one(families, name):
    before, dropped = TEMPLATES[name]
    tokenizer = families[name].tokenizers["tokenizer"]
    assert len(tokenizer(before).input_ids) == dropped == families[name].dropped
    assert len(tokenizer(AFTER).input_ids) == 5


def test_kinds_tell_the_prompt_from_the_template_and_padding(families):
    extra = families["qwen-image"].embed(["ab", "z"]).extra
    assert extra["kinds"].tolist() == [[WORD] * 2 + [EOS] * 5, [WORD] + [EOS] * 5 + [PAD]]
    assert extra["mask"].tolist() == [[True] * 7, [True] * 6 + [False]]


def test_a_prompt_beyond_the_length_is_cut_with_a_warning(families, caplog):
    family = families["qwen-image"]
    assert family.embed(["zx" * 300]).tokens.shape[1] == family.card.words.length
    assert "A prompt of 639 tokens with its template is cut to 546" in caplog.text


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
        moments = family.moments(images)
        plain = family.vae.encode(images.unsqueeze(2)).latent_dist
    scale = torch.tensor(family.vae.config.latents_std).reshape(1, -1, 1, 1)
    torch.testing.assert_close(moments.std * scale, plain.std[:, :, 0])
    assert torch.equal(
        family.encode(images, Rng.single(0, 0, 2)),
        moments.mean + moments.std * Rng.single(0, 0, 2).normal(*moments.mean.shape),
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


def pictures(*sizes):
    numbers = np.random.default_rng(0)
    return [Image.fromarray(numbers.integers(0, 255, (h, w, 3), dtype=np.uint8)) for w, h in sizes]


@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_an_edit_equals_the_pipelines_picture(families, guidance, monkeypatch):
    """Two pictures of different shapes; the pipeline sees them at the area of the pictures that the model draws."""
    family = families["qwen-image-edit"]
    monkeypatch.setattr(edit_plus, "VAE_IMAGE_SIZE", family.default_size**2)
    references = pictures((96, 64), (64, 128))
    request = Request(prompts=["a red dog"], steps=3, guidance=guidance, seed=5, references=references,
                      height=SIZE, width=SIZE)  # fmt: skip
    latents, _ = start_noise(family, [5], SIZE, SIZE)
    pipeline = family.pipeline()
    pipeline.scheduler = type(pipeline.scheduler).from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    theirs = pipeline(
        image=references, prompt=["a red dog"], negative_prompt=[""], true_cfg_scale=guidance, height=SIZE, width=SIZE,
        num_inference_steps=3, latents=pack(latents), output_type="pt",
    ).images  # fmt: skip
    *_, last = drawing(family, request)
    assert (last.clean_images() / 2 + 0.5 - theirs).abs().max() <= 1e-4
    *_, blind = drawing(family, replace(request, references=()))
    assert (blind.clean_images() / 2 + 0.5 - theirs).abs().max() > 1e-3


def test_several_prompts_look_at_the_same_pictures(families):
    family = families["qwen-image-edit"]
    seen = pictures((64, 64))
    with torch.no_grad():
        both = family.embed_with(["a dog", "the big cat"], seen, SIZE, SIZE)
        x_t, t = torch.randn(2, *family.latent_shape(SIZE, SIZE)), torch.full((2,), 0.5)
        found = family.predict(x_t, t, both)
        for row, prompt in enumerate(["a dog", "the big cat"]):
            alone = family.predict(x_t[row:][:1], t[:1], family.embed_with([prompt], seen, SIZE, SIZE))
            torch.testing.assert_close(found[row:][:1], alone, atol=1e-5, rtol=1e-4)


def test_more_pictures_than_it_was_trained_on_are_refused(families):
    family = families["qwen-image-edit"]
    with pytest.raises(
        StudioError, match="4 reference pictures were given, and Qwen-Image-Edit looks at 3 at most"
    ):
        family.embed_with(["a dog"], pictures(*[(64, 64)] * 4), SIZE, SIZE)
