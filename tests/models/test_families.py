"""Every family speaks as diffusers' own pipeline does."""

import pytest
import torch
from diffusers import AutoencoderTiny

from studio.backend.rng import Rng
from studio.contracts.condition import Condition
from studio.contracts.sampling import Request
from studio.diffusion.config import Denoising
from studio.diffusion.guidance import Guidance
from studio.diffusion.process import NUM_TIMESTEPS
from studio.errors import StudioError
from studio.models.build import load
from studio.models.denoising import add_noise
from studio.models.draw import conditions, draw, drawing, guided, start_noise
from studio.models.text import BOS, EOS, PAD, WORD
from studio.settings.sampling import Text
from tests.models.asking import SIZE, asked, autoencoded, pipeline_of, unpacked

PROMPTS = ["a photo of a dog", "the cat"]


def latents_of(family, b=2):
    return torch.randn(b, *family.latent_shape(64, 64), generator=torch.Generator().manual_seed(0))


def spied_inputs(family, call):
    """What the denoiser was called with while `call` ran."""
    seen = []
    hook = family.denoiser.register_forward_pre_hook(lambda _m, a, k: seen.append((a, k)), with_kwargs=True)
    try:
        call()
    finally:
        hook.remove()
    return seen


@pytest.mark.parametrize("guidance", [1.0, 3.5])
def test_the_first_prediction_equals_the_pipelines(family, guidance):
    """The pipeline is asked for two steps: what its scheduler is given first is compared with ours."""
    request = Request(prompts=PROMPTS, steps=2, guidance=guidance)
    latents, _ = start_noise(family, [0, 1], SIZE, SIZE)
    pipeline = quiet(family)
    seen = []
    step = pipeline.scheduler.step

    def watched(prediction, timestep, *args, **kw):
        seen.append((prediction, timestep))
        return step(prediction, timestep, *args, **kw)

    pipeline.scheduler.step = watched
    pipeline(**asked(family, request, latents))
    theirs, timestep = seen[0]
    t = (timestep.float() / NUM_TIMESTEPS).expand(2)
    with torch.no_grad():
        cond, uncond = conditions(family, request, PROMPTS)
        ours = guided(family, latents, t, cond=cond, uncond=uncond, guidance=Guidance(guidance))
    torch.testing.assert_close(ours, unpacked(family, theirs, latents), atol=1e-5, rtol=1e-4)


def quiet(family):
    """The family's pipeline with a scheduler of its own."""
    pipeline = pipeline_of(family)
    pipeline.scheduler = type(pipeline.scheduler).from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def test_drawing_equals_the_pipelines_picture_for_equal_noise(family):
    request = Request(prompts=PROMPTS, steps=4, guidance=3.5, seed=5, height=SIZE, width=SIZE)
    latents, _ = start_noise(family, [5, 5], SIZE, SIZE)
    theirs = quiet(family)(**asked(family, request, latents)).images[:, :3]  # some say how opaque it is
    steps = drawing(family, request)
    *_, last = steps
    ours = last.clean_images() / 2 + 0.5
    assert (ours - theirs).abs().max() <= 1e-4


def test_pictures_do_not_depend_on_how_many_are_drawn_at_once(family):
    request = Request(prompts=PROMPTS, num_images=2, steps=2, guidance=2.0, scheduler="")
    together, alone = draw(family, request, most=4), draw(family, request, most=1)
    for one, other in zip(together, alone, strict=True):
        difference = [abs(a - b) for a, b in zip(one.tobytes(), other.tobytes(), strict=True)]
        assert max(difference) <= 1


def test_the_second_picture_is_the_first_of_the_next_seed(families):
    family = families["sd1"]
    two = draw(family, Request(prompts=["a dog"], num_images=2, steps=3, scheduler="euler_a", seed=4), most=1)
    one = draw(family, Request(prompts=["a dog"], num_images=1, steps=3, scheduler="euler_a", seed=5), most=1)
    assert two[1] == one[0]


def test_guidance_of_one_runs_the_network_once_a_step(families):
    family = families["sd1"]
    for guidance, rows in ((1.0, 1), (0.0, 1), (3.0, 2)):
        request = Request(prompts=["a dog"], steps=2, guidance=guidance)
        seen = spied_inputs(family, lambda wanted=request: draw(family, wanted))
        assert [len(args[0]) for args, _ in seen] == [rows, rows]


def test_a_negative_prompt_changes_the_picture(families):
    plain = draw(families["sd1"], Request(prompts=["a dog"], steps=2))
    other = draw(families["sd1"], Request(prompts=["a dog"], steps=2, negative="blue sky"))
    assert plain[0] != other[0]


def test_a_negative_prompt_that_nothing_reads_is_said(families, caplog):
    draw(families["sd1"], Request(prompts=["a dog"], steps=1, negative="blue sky", guidance=1.0))
    assert "guidance 1 makes one pass, which reads no negative prompt" in caplog.text


def test_a_distilled_model_refuses_a_negative_prompt(families):
    with pytest.raises(StudioError, match="reads no negative prompt"):
        draw(families["flux"], Request(prompts=["a dog"], negative="sky"))


def test_a_size_that_does_not_divide_is_refused_with_the_nearest_ones(families):
    with pytest.raises(StudioError, match=r"width of 60 px is not a positive multiple of 8.*choose 56 or 64"):
        draw(families["sd1"], Request(prompts=["a dog"], width=60))


def test_an_unknown_scheduler_offers_the_nearest(families):
    with pytest.raises(StudioError, match="did you mean 'euler_a'"):
        draw(families["sd1"], Request(prompts=["a dog"], scheduler="euler-a"))
    with pytest.raises(StudioError, match="flow-euler"):
        draw(families["sd3"], Request(prompts=["a dog"], scheduler="euler"))


@pytest.mark.parametrize(
    "scheduler", ["ddpm", "euler", "heun", "lms", "pndm", "lcm", "dpm++", "dpm++_sde", "unipc"]
)
def test_every_sampler_draws(families, scheduler):
    picture = draw(families["sd2"], Request(prompts=["a dog"], steps=3, scheduler=scheduler, guidance=2))[0]
    assert picture.size == (64, 64)


@pytest.mark.parametrize("scheduler", ["flow-heun", "flow-dpm++", "flow-unipc"])
def test_every_flow_sampler_draws(families, scheduler):
    assert draw(families["flux"], Request(prompts=["a dog"], steps=3, scheduler=scheduler))[0].size == (
        64,
        64,
    )


def test_drawing_yields_once_a_step_with_previews(families):
    seen = list(drawing(families["sd1"], Request(prompts=["a dog", "b"], steps=3), most=1))
    assert [one.done for one in seen] == [1, 2, 3, 4, 5, 6]
    assert {one.total for one in seen} == {6}
    assert seen[0].preview()[0].size == (64, 64)


def test_encoding_without_numbers_repeats_and_with_numbers_varies(family):
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.no_grad():
        mode, again = family.encode(images), family.encode(images)
        drawn = family.encode(images, Rng.single(0, 0, 2))
    assert torch.equal(mode, again)
    assert mode.shape == (2, *family.latent_shape(64, 64))
    assert not torch.equal(mode, drawn)


def test_encoding_is_the_inverse_scale_of_decoding(family):
    """Decoding undoes the scale and shift of encoding: the autoencoder alone gives the same picture."""
    images = torch.zeros(1, 3, 64, 64)
    with torch.no_grad():
        ours = family.decode(family.encode(images))
        theirs = autoencoded(family.vae, images).clamp(-1, 1)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def test_a_tiny_autoencoder_takes_the_place_of_a_large_one(families, backend):
    small = AutoencoderTiny(
        latent_channels=4, encoder_block_out_channels=(8,) * 4, decoder_block_out_channels=(8,) * 4
    ).eval()
    parts = families["sd1"].pipeline()
    parts.register_modules(vae=small)
    family = type(families["sd1"])(parts, backend)
    images = torch.rand(1, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        latents = family.encode(images)
        torch.testing.assert_close(latents, small.encode(images).latents)
        torch.testing.assert_close(family.decode(latents), small.decode(latents).sample.clamp(-1, 1))


def test_kinds_tell_words_from_padding(families):
    kinds = families["sd1"].embed(["ab ok", ""]).extra["kinds"]
    assert kinds[0, :5].tolist() == [BOS, WORD, WORD, EOS, PAD]
    assert kinds[1, :3].tolist() == [BOS, EOS, PAD]


def test_a_long_prompt_is_cut_or_encoded_in_parts(families, backend, caplog):
    family = families["sd1"]
    long = "z " * 100
    assert family.embed([long]).tokens.shape[1] == 77
    assert "cut to 75" in caplog.text
    parted = type(family)(family.pipeline(), backend, Text(long_prompts=True))
    found = parted.embed([long, "short"])
    assert found.tokens.shape[1] == 154
    torch.testing.assert_close(found.tokens[:1, :77], family.embed([long]).tokens)


def test_drawing_takes_a_long_prompt_beside_a_short_negative(families, backend):
    family = type(families["sd1"])(families["sd1"].pipeline(), backend, Text(long_prompts=True))
    assert draw(family, Request(prompts=["z " * 100], steps=1, negative="no"))[0].size == (64, 64)


def test_clip_skip_reads_an_earlier_layer(families, backend):
    family = families["sd1"]
    skipped = type(family)(family.pipeline(), backend, Text(clip_skip=1)).embed(["a dog"]).tokens
    encoder = family.text_encoders["text_encoder"]
    ids = family.tokenizers["tokenizer"](["a dog"], padding="max_length", return_tensors="pt").input_ids
    hidden = encoder(ids, output_hidden_states=True).hidden_states[-2]
    torch.testing.assert_close(skipped, encoder.final_layer_norm(hidden))


def test_an_empty_prompt_is_zeros_where_the_model_was_trained_so(families):
    cond = families["sdxl"].embed(["", "a dog"])
    assert not cond.tokens[0].any()
    assert not cond.pooled[0].any()
    assert cond.tokens[1].any()


def test_gradients_reach_a_text_encoder_that_trains(families):
    family = families["sdxl"]
    encoder = family.text_encoders["text_encoder_2"].requires_grad_(True)
    family.embed(["a dog"]).tokens.sum().backward()
    weight = encoder.text_model.embeddings.token_embedding.weight
    assert weight.grad is not None
    assert weight.grad.abs().sum() > 0
    encoder.requires_grad_(False)
    encoder.zero_grad(set_to_none=True)


def test_conditions_join_split_and_repeat():
    cond = Condition(torch.arange(4.0).reshape(2, 2, 1), None, {"kinds": torch.tensor([[1, 2], [3, 4]])})
    assert cond.repeat(2).tokens[:, 0, 0].tolist() == [0, 0, 2, 2]
    assert cond.rows([1]).cat(cond.rows([0])).extra["kinds"].tolist() == [[3, 4], [1, 2]]


def test_the_fingerprint_follows_the_weights(backend):
    family = load("tiny:sd1", backend)
    before, vae = family.fingerprint(), family.fingerprint("vae")
    parts = family.pipeline()
    assert type(family)(parts, backend).fingerprint() == before
    with torch.no_grad():
        parts.unet.conv_in.bias[0] += 1
    changed = type(family)(parts, backend)
    assert changed.fingerprint() != before
    assert changed.fingerprint("vae") == vae


def test_training_is_flow_matching_at_the_cards_times(family):
    """x_t = (1 - t) x0 + t eps and eps - x0 to learn; logit-normal times, moved by the card's shift."""
    if family.prediction != "flow":
        pytest.skip("it predicts noise or velocity")
    x0 = latents_of(family, 4)
    noised = add_noise(family, x0, Rng.single(0, 0, 4), Denoising())
    rng = Rng.single(0, 0, 4)
    u, eps = torch.sigmoid(rng.normal(4)), rng.normal(*x0.shape)
    base, own = family.scheduler_base.config, family.card.schedule.training_shift
    shift = own or (1.0 if base.use_dynamic_shifting else base.shift)
    t = shift * u / (1 + (shift - 1) * u)
    torch.testing.assert_close(noised.t, t)
    torch.testing.assert_close(noised.target, eps - x0)
    t = t[:, None, None, None]
    torch.testing.assert_close(noised.x_t, (1 - t) * x0 + t * eps)


def test_modules_are_frozen_when_loaded(family):
    for module in family.modules().values():
        assert not any(parameter.requires_grad for parameter in module.parameters())
        assert not module.training
