"""Facts of studio-tiny-dit and of how it is made."""

import pytest
import torch

from studio import assets
from studio.backend.core import Backend
from studio.backend.rng import Rng
from studio.contracts.sampling import Request
from studio.data.sticker_config import Stickers
from studio.data.stickers import draw_scenes
from studio.models.build import load
from studio.models.draw import draw
from studio.settings.run import Hardware
from trainers.pretrain.config import Dit
from trainers.pretrain.dit import T5_ROWS, DitRecipe, build_transformer
from trainers.pretrain.latents import tokenize

FOLDER = assets.root() / "models" / "studio-tiny-dit"
PROMPTS = ["a sticker of a fox on green grass", ""]


def _recipe(**settings):
    recipe = DitRecipe(Dit(autoencoder=str(assets.path("models/studio-tiny/vae")), **settings))
    recipe.setup(Backend(Hardware(device="cpu")))
    return recipe


@pytest.fixture(scope="module")
def trained():
    return _recipe(start=str(FOLDER))


def _batch(recipe, captions, latents):
    return {"latents": latents, "tokens": tokenize(recipe.tokenizer, captions)}


def test_an_untrained_transformer_predicts_nothing():
    model = build_transformer(32, 2, 4)
    out = model(
        torch.randn(2, 16, 8, 8), torch.randn(2, 5, 128), torch.randn(2, 128), torch.rand(2) * 1000
    ).sample
    assert out.abs().max() == 0


def test_the_first_loss_is_the_mean_square_of_the_velocity():
    recipe = _recipe(width=32, depth=1)
    clean = torch.zeros(64, 16, 8, 8)
    loss = recipe.loss(_batch(recipe, [""] * 64, clean), Rng.single(0, 0, 64)).total
    assert loss.item() == pytest.approx(1.0, abs=0.02)  # noise - 0, of unit variance


def test_it_is_conditioned_as_the_family_and_diffusers_condition_it(trained):
    rows, pooled = trained._embed(tokenize(trained.tokenizer, PROMPTS))
    family = load(str(FOLDER), Backend(Hardware(device="cpu")))
    cond = family.embed(PROMPTS)
    torch.testing.assert_close(cond.tokens.float(), rows, atol=2e-3, rtol=2e-3)
    torch.testing.assert_close(cond.pooled.float(), pooled, atol=2e-3, rtol=2e-3)
    with torch.no_grad():
        plain, _, plain_pooled, _ = trained.pipeline().encode_prompt(
            PROMPTS, None, None, do_classifier_free_guidance=False, max_sequence_length=T5_ROWS
        )
    torch.testing.assert_close(plain, rows)
    torch.testing.assert_close(plain_pooled, pooled)


def test_the_embedded_transformer_loses_more_without_its_captions(trained):
    scenes = draw_scenes(Stickers(), 32, torch.Generator().manual_seed(5))
    with torch.no_grad():
        latents = trained.vae.encode(scenes.images).latents * trained.vae.config.scaling_factor
        told, silent = (
            trained.loss(_batch(trained, captions, latents), Rng.single(0, 0, 32)).total
            for captions in (scenes.captions, [""] * 32)
        )
    assert told < silent


def test_it_draws_the_background_that_the_prompt_names():
    family = load("studio-tiny-dit", Backend(Hardware(device="cpu")))
    prompts = [f"a sticker of a panda on a {color} background" for color in ("red", "blue")]
    red, blue = draw(family, Request(prompts=prompts, seed=0, steps=12, guidance=3.5))
    assert red.size == (64, 64)
    corner = [picture.convert("RGB").getpixel((3, 3)) for picture in (red, blue)]
    assert corner[0][0] > corner[0][2] + 60
    assert corner[1][2] > corner[1][0] + 60
