"""Facts of the pre-training of the embedded models."""

import copy
import json
import re
from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
from einops import rearrange
from safetensors import safe_open

from studio import assets
from studio.backend.core import Backend
from studio.backend.rng import Rng
from studio.backend.shard import Shard
from studio.catalog import methods
from studio.catalog.run import Run
from studio.console import Console
from studio.data.sticker_concepts import HELD_OUT
from studio.data.sticker_config import Stickers
from studio.data.stickers import draw_scenes, names
from studio.errors import StudioError
from studio.records import runs
from studio.settings import serial
from studio.settings.run import Hardware, Loop, Optim
from studio.testing import small
from studio.training.session import Session
from studio.training.train import resume, train
from tests.cases import CASES
from trainers.pretrain.autoencoder import SceneSource, build
from trainers.pretrain.cards import write_card
from trainers.pretrain.clip import HardSource, model_config, start_image_tower
from trainers.pretrain.command import NAMES, command
from trainers.pretrain.config import METHOD, Autoencoder, Pretrain, TextToImage, Vit
from trainers.pretrain.evaluate import held_out_prompts, names_background, real_scenes
from trainers.pretrain.latents import LatentSource, tokenize
from trainers.pretrain.muon import Muon, is_hidden, orthogonalize
from trainers.pretrain.pca import PatchPca, start_encoder
from trainers.pretrain.run import RUNS, pretrain
from trainers.pretrain.text_to_image import noise_scheduler
from trainers.pretrain.tokens import LENGTH, VOCABULARY, build_tokenizer, corpus, merges
from trainers.pretrain.vit import build_vit, erase

PLAIN = Stickers(num_concepts=8, styles=("3d",))


def _scenes(count: int):
    return draw_scenes(PLAIN, count, torch.Generator().manual_seed(0))


def _as_bytes(images):
    return ((images + 1) * 127.5).round().to(torch.uint8)


def test_the_encoder_starts_as_exactly_the_patch_pca():
    images = _scenes(8).images
    pca = PatchPca(_as_bytes(images))
    model = build(Autoencoder())
    start_encoder(model, pca)
    patches = rearrange((images + 1) / 2, "b c (h i) (w j) -> b h w (c i j)", i=8, j=8)
    expected = rearrange((patches - pca.mean) @ pca.projection().T, "b h w k -> b k h w")
    with torch.no_grad():
        torch.testing.assert_close(model.encoder(images), expected, atol=1e-4, rtol=1e-4)


def test_pca_with_all_components_loses_nothing():
    images = _scenes(16).images
    pca = PatchPca(_as_bytes(images), num_components=192)
    torch.testing.assert_close(pca.reconstruct(images), images, atol=1e-3, rtol=0)


def test_muon_updates_have_singular_values_near_one():
    values = torch.linalg.svdvals(
        orthogonalize(torch.randn(48, 96, generator=torch.Generator().manual_seed(0)), 5)
    )
    assert values.min() > 0.6
    assert values.max() < 1.3


@pytest.mark.parametrize(
    ("shape", "hidden"),
    [((96, 48, 3, 3), True), ((64, 64), True), ((64,), False), ((2048, 192), False), ((16, 96, 3, 3), False)],
)
def test_muon_takes_hidden_weights_and_leaves_the_rest_to_adam(shape, hidden):
    assert is_hidden(torch.zeros(shape)) == hidden


def test_muon_resumes_exactly():
    def step(weights, optimizer):
        for place, weight in enumerate(weights):
            weight.grad = torch.sin(weight.detach() + place)
        optimizer.step()

    whole = [torch.nn.Parameter(torch.ones(40, 40)), torch.nn.Parameter(torch.ones(3))]
    first = Muon(whole)
    step(whole, first)
    parts = [torch.nn.Parameter(weight.detach().clone()) for weight in whole]
    second = Muon(parts)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    step(whole, first)
    step(parts, second)
    assert all(torch.equal(one, other) for one, other in zip(whole, parts, strict=True))


def test_muon_refuses_unknown_options():
    with pytest.raises(TypeError, match="newton"):
        Muon([torch.nn.Parameter(torch.ones(2))], newton=3)


def test_the_tokenizer_is_learned_without_chance():
    texts = corpus()[:500]
    assert merges(texts, 40) == merges(list(reversed(texts)), 40)


def test_scene_captions_fit_the_prompt():
    tokenizer = build_tokenizer()
    assert len(tokenizer) == VOCABULARY
    assert max(len(tokens) for tokens in tokenizer(corpus()[:2000]).input_ids) <= LENGTH


def test_held_out_names_are_not_single_tokens():
    tokenizer = build_tokenizer()
    assert all(len(tokenizer.tokenize(name)) > 1 for name in HELD_OUT)


def test_the_last_step_is_pure_noise():
    assert noise_scheduler().alphas_cumprod[-1] < 1e-7


def test_scenes_can_start_at_any_step():
    whole = SceneSource(PLAIN).stream(0, 0, Shard(4, 0, 4))
    next(whole)
    later = next(SceneSource(PLAIN).stream(0, 1, Shard(4, 0, 4)))
    assert torch.equal(next(whole)["images"], later["images"])


def test_shards_of_scenes_make_the_whole_batch():
    whole = next(SceneSource(PLAIN).stream(0, 3, Shard(4, 0, 4)))["images"]
    half = next(SceneSource(PLAIN).stream(0, 3, Shard(4, 2, 4)))["images"]
    assert torch.equal(whole[2:], half)


def test_some_captions_are_left_empty():
    source = LatentSource(
        torch.zeros(8, 16, 8, 8),
        torch.ones(8, 2, 24, dtype=torch.long),
        torch.zeros(24, dtype=torch.long),
        0.5,
    )
    tokens = next(source.stream(0, 0, Shard(200, 0, 200)))["tokens"]
    assert 0.3 < (tokens[:, 0] == 0).float().mean() < 0.7


def test_a_hard_batch_shows_one_background_and_each_object_once():
    drawn = HardSource(PLAIN, build_tokenizer(), 1.0)._draw(8, torch.Generator().manual_seed(0), hard=True)
    assert sorted(drawn.concepts.tolist()) == list(range(8))
    assert len(set(drawn.kinds.tolist())) == 1
    assert all(" on " not in caption for caption in drawn.captions[::2])


def test_a_hard_batch_cannot_be_larger_than_the_number_of_objects():
    with pytest.raises(StudioError, match="choose 8 or less"):
        next(HardSource(PLAIN, build_tokenizer(), 1.0).stream(0, 0, Shard(9, 0, 9)))


def test_the_image_tower_starts_with_the_features_of_the_classifier():
    import open_clip

    torch.manual_seed(0)
    vit = build_vit(128, 2, 5).eval()
    torch.nn.init.normal_(vit.patch_embed.proj.bias)
    clip = open_clip.CLIP(**model_config(depth=2)).eval()
    start_image_tower(clip.visual, vit)
    images = _scenes(3).images
    with torch.no_grad():
        torch.testing.assert_close(
            clip.visual(images), vit.forward_features(images)[:, 0] @ clip.visual.proj, atol=1e-4, rtol=1e-4
        )


def test_erasing_nothing_leaves_the_pictures_alone():
    images = _scenes(4).images
    assert torch.equal(erase(images, 0.0, Rng.single(0, 0, 4)), images)


def test_held_out_prompts_name_the_object_and_the_background():
    prompts, pairs = held_out_prompts(Stickers())
    assert len(set(prompts)) == len(prompts) == 200
    assert all(names(40)[pair[0]] in prompt for prompt, pair in zip(prompts, pairs.tolist(), strict=True))
    assert all(re.search(" on ", prompt) for prompt in prompts)


def test_the_background_judge_knows_real_scenes():
    _, pairs = held_out_prompts(Stickers(), 30)
    images = torch.cat(
        [real_scenes(Stickers(), tuple(pair), 40 + row)[:1] for row, pair in enumerate(pairs.tolist())]
    )
    assert names_background(images, Stickers(), pairs).mean() > 0.8


def test_a_stopped_run_goes_on_exactly(tmp_path):
    model = Vit(scenes=PLAIN, width=64, depth=1)
    run = Run(
        method=Pretrain(model=model), output=str(tmp_path), name="whole", loop=Loop(steps=3, batch_size=4),
        optim=Optim(name="trainers.pretrain.muon.Muon", lr=0.01), hardware=Hardware(device="cpu"),
    )  # fmt: skip
    list(train(run))
    asked = iter([False, True])
    list(train(replace(run, name="parts"), stop=lambda: next(asked, True)))
    list(resume(tmp_path / "parts"))
    read = [
        tmp_path / name / "checkpoints" / "step-00000003" / "weights.safetensors"
        for name in ("whole", "parts")
    ]
    assert read[0].read_bytes() == read[1].read_bytes()


def test_an_unknown_embedded_model_is_refused():
    with pytest.raises(StudioError, match="tiny-vit"):
        next(pretrain("tiny-vitt"))


def test_the_command_refuses_an_unknown_model():
    with pytest.raises(StudioError, match="tiny-clip"):
        command(["tiny-clipp"], Console())


def test_the_settings_survive_json():
    for run in RUNS.values():
        values = json.loads(json.dumps(serial.to_dict(run.method)))
        assert serial.from_dict(Pretrain, values) == run.method
    assert methods.card("pretrain") is METHOD


def test_text_to_image_loses_more_without_its_captions(tmp_path):
    folder = assets.path("models/studio-tiny")
    from trainers.pretrain.text_to_image import TextToImageRecipe

    recipe = TextToImageRecipe(TextToImage(autoencoder=str(folder / "vae"), start=str(folder)))
    recipe.setup(Backend(Hardware(device="cpu")))
    scenes = draw_scenes(Stickers(), 32, torch.Generator().manual_seed(5))
    with torch.no_grad():
        latents = recipe.vae.encode(scenes.images).latents * recipe.vae.config.scaling_factor
        told = {"latents": latents, "tokens": tokenize(recipe.tokenizer, scenes.captions)}
        silent = {"latents": latents, "tokens": tokenize(recipe.tokenizer, [""] * 32)}
        losses = [recipe.loss(batch, Rng.single(0, 0, 32)).total for batch in (told, silent)]
    assert losses[0] < losses[1]


def test_the_embedded_models_are_small_safetensors():
    folder = assets.root() / "models"
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert not [path for path in files if path.suffix in {".bin", ".pt", ".pth", ".ckpt"}]
    for path in files:
        if path.suffix == ".safetensors":
            with safe_open(path, "np") as tensors:
                assert tensors.get_tensor(next(iter(tensors.keys()))).dtype in (np.float16, np.int64)
    assert sum(path.stat().st_size for path in assets.root().rglob("*") if path.is_file()) < 60e6


def test_the_classifier_names_unseen_scenes():
    network = (
        timm.create_model(f"local-dir:{assets.path('models/studio-tiny-vit')}", pretrained=True)
        .float()
        .eval()
    )
    scenes = draw_scenes(Vit().scenes, 200, torch.Generator().manual_seed(77))
    with torch.no_grad():
        assert (network(scenes.images).argmax(1) == scenes.concepts).float().mean() > 0.8


def test_a_card_counts_the_steps_of_a_run_and_holds_its_scores(tmp_path):
    values = json.loads(assets.path("models/studio-tiny-vit/run.json").read_text())
    folder = runs.create(Run.from_dict(values | {"output": str(tmp_path), "name": "vit"}))
    events = [{"event": "start", "time": 0.0}, {"event": "step", "step": 7, "time": 120.0}]
    folder.events.write_text("".join(json.dumps(each) + "\n" for each in events))
    (folder.export / "scores.json").write_text(json.dumps({"clean_accuracy": 0.5, "quality": 0.5}))
    run = Run.from_dict(values)
    facts = {"device": "a CPU", "commit": "abc", "date": "today", "note": "A note."}
    text = write_card(folder, run, tmp_path, facts).read_text()
    assert (
        f"| steps | 7 of {run.loop.batch_size} examples = {7 * run.loop.batch_size} examples seen |" in text
    )
    assert "| time | 2 minutes of wall time |" in text
    assert "| clean accuracy | 0.500 |" in text
    assert "quality" not in text


def test_the_command_knows_every_embedded_model():
    assert set(NAMES) == set(RUNS)


def test_a_new_network_is_of_no_published_model(tmp_path):
    """Its settings are no name: they were looked for as a file, whose name is too long."""
    session = Session.__new__(Session)
    session.run = small(CASES["pretrain"](tmp_path), tmp_path)
    assert session.variant is None
