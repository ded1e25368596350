"""DreamBooth: the objective by hand, the prior, rare words, and what training may touch."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from studio.adapters.build import attach
from studio.adapters.config import Full, Lora
from studio.backend.core import Backend
from studio.backend.rng import Rng
from studio.catalog.families import cards
from studio.catalog.run import Run
from studio.commands.runs import show
from studio.console import Console
from studio.contracts.batch import Batch
from studio.contracts.sampling import Request
from studio.data.config import Images
from studio.diffusion.config import Denoising
from studio.errors import StudioError
from studio.models.build import load
from studio.models.denoising import latents_of
from studio.same_subject.config import FolderPrior, GeneratedPrior, NoPrior, OnlinePrior
from studio.same_subject.identifier import STOP_WORDS, pick_identifier
from studio.same_subject.prior import generate_prior, prior_key
from studio.settings.run import Hardware, Loop, Preview
from studio.settings.sampling import Text
from studio.training.train import run_to_end, train
from studio.training.verify import verify_resume
from trainers.dreambooth.config import DreamBooth
from trainers.dreambooth.trainer import DreamBoothTrainer

CPU = Hardware(device="cpu")


def pictures(folder: Path, number: int, seed: int = 0) -> Path:
    folder.mkdir()
    draw = np.random.default_rng(seed)
    for index in range(number):
        Image.fromarray(draw.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(folder / f"{index}.png")
    return folder


@pytest.fixture
def settings(tmp_path: Path) -> DreamBooth:
    data, classes = pictures(tmp_path / "subject", 3), pictures(tmp_path / "classes", 4, seed=1)
    prior = FolderPrior(folder=str(classes))
    return DreamBooth(data=str(data), model="tiny:sd1", class_word="dog", token="sks", prior=prior)


def ready(settings: DreamBooth) -> DreamBoothTrainer:
    trainer = DreamBoothTrainer(settings)
    trainer.backend = Backend(CPU)
    with trainer.backend.seeded(0):
        trainer.setup(trainer.backend)
    return trainer


def batch_of(trainer: DreamBoothTrainer, size: int) -> Batch:
    return next(trainer.source().stream(0, 0, Backend(CPU).shard(size)))


def halves(trainer: DreamBoothTrainer, batch: Batch, rng: Rng) -> tuple[torch.Tensor, torch.Tensor]:
    """Squared errors of both halves, written from the paper with the same draws."""
    family, found = trainer.family, []
    for prefix, captions in (
        ("", batch["captions"]),
        ("prior_", [trainer.subject.class_prompt] * len(batch["captions"])),
    ):
        latents = family.encode(batch[f"{prefix}images"], rng)
        t = family.process.sample_times(rng, len(latents))
        eps = rng.normal(*latents.shape)
        x_t = family.process.add_noise(latents, eps, t)
        predicted = family.predict(x_t, t, family.embed(captions))
        target = family.process.target(latents, eps, t, family.prediction)
        found.append(((predicted - target) ** 2).flatten(1).mean(1))
    return found[0], found[1]


def cached(settings: DreamBooth, tmp_path: Path, **images) -> DreamBooth:
    made = Images(cache_folder=str(tmp_path / "cache"), **images)
    return dataclasses.replace(settings, images=made, prompt="a {token} {class}", class_prompt="a {class}")


@pytest.mark.parametrize("latents", ["sample", "mode"])
def test_a_cached_run_is_the_uncached_one(settings: DreamBooth, tmp_path: Path, latents: str) -> None:
    found = {}
    for cache in ("none", "latents"):
        trainer = ready(cached(settings, tmp_path, cache=cache, latents=latents))
        stream = trainer.source().stream(0, 0, trainer.backend.shard(2))
        found[cache] = [
            trainer.loss(next(stream), Rng.single(0, step, 2)).total.detach() for step in range(4)
        ]
        stream.close()
    torch.testing.assert_close(found["latents"], found["none"], atol=1e-6, rtol=1e-6)


def test_cached_latents_are_sampled_anew_in_each_step(settings: DreamBooth, tmp_path: Path) -> None:
    trainer = ready(cached(settings, tmp_path, cache="latents"))
    batch = batch_of(trainer, 2)
    assert batch["latents_std"].min() > 0
    seen = [latents_of(trainer.family, batch, Rng.single(0, step, 2)) for step in (1, 1, 2)]
    assert torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[0], seen[2])
    mode = latents_of(trainer.family, batch, Rng.single(0, 1, 2), kind="mode")
    assert torch.equal(mode, batch["latents"])


def test_a_cached_run_resumes_exactly(settings: DreamBooth, tmp_path: Path) -> None:
    method = dataclasses.replace(cached(settings, tmp_path, cache="latents+text"), adapter=Lora(rank=2))
    run = Run(method=method, output=str(tmp_path), name="one", loop=Loop(steps=2, batch_size=2), hardware=CPU)
    assert verify_resume(run, steps=3, at=1) == []


def test_an_autoencoder_with_another_scale_makes_latents_of_its_own(
    settings: DreamBooth, tmp_path: Path
) -> None:
    """The weights are the same: only a number in vae/config.json changes."""
    load("tiny:sd1", Backend(CPU)).pipeline().save_pretrained(tmp_path / "model", safe_serialization=True)
    config = tmp_path / "model" / "vae" / "config.json"
    losses = {}
    for scale in (0.18215, 0.3):
        config.write_text(json.dumps(json.loads(config.read_text()) | {"scaling_factor": scale}))
        for cache in ("latents", "none"):
            asked = dataclasses.replace(
                cached(settings, tmp_path, cache=cache), model=str(tmp_path / "model"), prior=NoPrior()
            )
            trainer = ready(asked)
            losses[scale, cache] = trainer.loss(batch_of(trainer, 2), Rng.single(0, 1, 2)).total.detach()
        torch.testing.assert_close(losses[scale, "latents"], losses[scale, "none"], atol=1e-6, rtol=1e-6)
    assert losses[0.3, "latents"] != losses[0.18215, "latents"]


def test_class_pictures_that_went_missing_are_refused(settings: DreamBooth, tmp_path: Path) -> None:
    family = load("tiny:sd1", Backend(CPU))
    prior = GeneratedPrior(num_images=2, steps=1, folder=str(tmp_path / "priors"))
    folder = generate_prior(family, "a dog", prior, 0)
    next(folder.glob("*.png")).unlink()
    with pytest.raises(
        StudioError, match="holds 1 class pictures, not the 2 that were drawn; delete the folder"
    ):
        generate_prior(family, "a dog", prior, 0)


def test_class_pictures_are_drawn_with_the_numbers_of_the_models_card(tmp_path: Path) -> None:
    """Sets that were drawn before numbers came from cards are found again."""
    known, unknown = load("tiny:flux", Backend(CPU)), load("tiny:flux", Backend(CPU))
    known.variant = cards()["flux"].variant("flux-schnell")
    given, old = GeneratedPrior(steps=4, guidance=1.0), GeneratedPrior(steps=50, guidance=7.5)
    assert prior_key(known, "a dog", GeneratedPrior(), 0) == prior_key(known, "a dog", given, 0)
    assert prior_key(unknown, "a dog", GeneratedPrior(), 0) == prior_key(unknown, "a dog", old, 0)


def test_class_pictures_follow_how_text_is_read(tmp_path: Path) -> None:
    prior = GeneratedPrior()
    keys = {
        prior_key(load("tiny:sd1", Backend(CPU), text=text), "a dog", prior, 0)
        for text in (Text(), Text(clip_skip=1))
    }
    assert len(keys) == 2


@pytest.mark.parametrize("weight", [0.5, 2.0])
def test_loss_is_the_subject_mean_plus_lambda_times_the_prior_mean(
    settings: DreamBooth, weight: float
) -> None:
    trainer = ready(dataclasses.replace(settings, prior_weight=weight))
    batch = batch_of(trainer, 3)
    loss = trainer.loss(batch, Rng.single(0, 1, 3))
    subject, prior = halves(trainer, batch, Rng.single(0, 1, 3))
    torch.testing.assert_close(loss.total, subject.mean() + weight * prior.mean())
    torch.testing.assert_close(loss.parts["loss_prior"], prior.mean())


def test_weight_zero_is_a_run_without_class_pictures(settings: DreamBooth) -> None:
    gradients = []
    for changed in (
        dataclasses.replace(settings, prior_weight=0.0),
        dataclasses.replace(settings, prior=NoPrior()),
    ):
        trainer = ready(changed)
        trainer.loss(batch_of(trainer, 2), Rng.single(0, 1, 2)).total.backward()
        gradients.append(
            {k: p.grad for k, p in trainer.family.denoiser.named_parameters() if p.grad is not None}
        )
    assert gradients[0]
    assert all(torch.equal(gradients[0][key], gradients[1][key]) for key in gradients[1])


@pytest.mark.parametrize("size", [1, 2])
def test_min_snr_weights_each_half_by_its_own_times(settings: DreamBooth, size: int) -> None:
    trainer = ready(dataclasses.replace(settings, denoising=Denoising(min_snr=5.0)))
    plain = ready(settings)
    batch = batch_of(trainer, size)
    loss = trainer.loss(batch, Rng.single(0, 1, size))
    rng, family = Rng.single(0, 1, size), plain.family
    weights = []
    for prefix in ("", "prior_"):
        latents = family.encode(batch[f"{prefix}images"], rng)
        snr = family.process.snr(family.process.sample_times(rng, size))
        rng.normal(*latents.shape)
        weights.append(torch.clamp(snr, max=5.0) / snr)
    subject, prior = halves(plain, batch, Rng.single(0, 1, size))
    torch.testing.assert_close(loss.total, (weights[0] * subject).mean() + (weights[1] * prior).mean())


def test_the_online_prior_is_zero_at_the_start(settings: DreamBooth) -> None:
    trainer = ready(dataclasses.replace(settings, prior=OnlinePrior()))
    loss = trainer.loss(batch_of(trainer, 2), Rng.single(0, 1, 2))
    assert float(loss.parts["loss_prior"].detach()) < 1e-9


def test_an_untrained_adapter_draws_what_the_base_draws(settings: DreamBooth) -> None:
    trainer = ready(settings)
    request = Request(prompts=["a photo of a {token} {class}"], steps=2)
    drawn = trainer.sample(request, Rng.single(0, 0, 1)).images[0]
    with torch.no_grad():
        base = load("tiny:sd1", Backend(CPU))
        from studio.models.draw import draw

        plain = draw(base, Request(prompts=["a photo of a sks dog"], steps=2), Rng.single(0, 0, 1))[0]
    assert np.array_equal(np.asarray(drawn), np.asarray(plain))


@pytest.mark.parametrize("text", [False, True])
def test_one_step_changes_only_the_adapter(settings: DreamBooth, tmp_path: Path, text: bool) -> None:
    trainer = ready(dataclasses.replace(settings, text_encoder=text))
    family = trainer.family
    before = {
        f"{m}.{k}": v.clone() for m, net in family.modules().items() for k, v in net.state_dict().items()
    }
    optimizer = torch.optim.SGD(
        [p for n in family.modules().values() for p in n.parameters() if p.requires_grad], 1.0
    )
    trainer.loss(batch_of(trainer, 2), Rng.single(0, 1, 2)).total.backward()
    optimizer.step()
    after = {f"{m}.{k}": v for m, net in family.modules().items() for k, v in net.state_dict().items()}
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert changed
    assert all("lora_" in key for key in changed)
    assert any(key.startswith("text_encoder") for key in changed) is text


def test_the_rare_word_round_trips_and_is_the_same_for_a_seed() -> None:
    tokenizers = load("tiny:sdxl", Backend(CPU)).tokenizers
    words = {seed: pick_identifier(tokenizers, seed=seed) for seed in range(5)}
    assert words == {seed: pick_identifier(tokenizers, seed=seed) for seed in range(5)}
    for word in words.values():
        assert word not in STOP_WORDS
        ids = tokenizers["tokenizer"].encode(word, add_special_tokens=False)
        assert len(ids) == 1
        assert tokenizers["tokenizer"].decode(ids).strip() == word


def test_the_key_of_the_prior_follows_the_base_and_the_prompt() -> None:
    family, other = load("tiny:sd1", Backend(CPU)), load("tiny:sd2", Backend(CPU))
    prior = GeneratedPrior(num_images=2, steps=1)
    keys = {
        prior_key(f, p, prior, 0) for f in (family, other) for p in ("a photo of a dog", "a photo of a cat")
    }
    assert len(keys) == 4


def test_class_pictures_are_refused_with_an_adapter_on_the_model(tmp_path: Path) -> None:
    family = load("tiny:sd1", Backend(CPU))
    attach(Lora(rank=2), {"unet": family.denoiser})
    with pytest.raises(RuntimeError, match="untouched model"):
        generate_prior(family, "a photo of a dog", GeneratedPrior(num_images=1, folder=str(tmp_path)), 0)


def test_class_pictures_are_drawn_once(settings: DreamBooth, tmp_path: Path) -> None:
    family = load("tiny:sd1", Backend(CPU))
    prior = GeneratedPrior(num_images=2, steps=1, folder=str(tmp_path / "priors"))
    folder = generate_prior(family, "a photo of a dog", prior, 0)
    times = [p.stat().st_mtime_ns for p in sorted(folder.iterdir())]
    assert len(times) == 2
    assert generate_prior(family, "a photo of a dog", prior, 0) == folder
    assert [p.stat().st_mtime_ns for p in sorted(folder.iterdir())] == times


def test_pictures_that_cannot_be_used_are_refused_before_class_pictures_are_drawn(
    settings, tmp_path: Path
) -> None:
    photo = next(Path(settings.data).glob("*.png"))
    photo.write_bytes(photo.read_bytes()[:-60])
    priors = tmp_path / "priors"
    with pytest.raises(StudioError, match="is damaged"):
        ready(dataclasses.replace(settings, prior=GeneratedPrior(num_images=2, steps=1, folder=str(priors))))
    assert not priors.exists()


def test_a_missing_token_in_every_caption_is_refused(settings: DreamBooth, tmp_path: Path) -> None:
    for path in Path(settings.data).glob("*.png"):
        path.with_suffix(".txt").write_text("a photo of my dog")
    with pytest.raises(StudioError, match=r"No caption has the token 'sks'"):
        ready(settings).source()


def test_a_folder_that_is_not_there_is_refused_before_a_run_is_made(tmp_path: Path) -> None:
    run = Run(method=DreamBooth(data=str(tmp_path / "none")), output=str(tmp_path / "runs"))
    with pytest.raises(StudioError, match="does not exist; --data takes a folder"):
        list(train(run))
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("family", list(cards()))
def test_every_family_has_a_rare_word(family: str) -> None:
    tokenizers = load(f"tiny:{family}", Backend(CPU)).tokenizers
    assert pick_identifier(tokenizers) not in STOP_WORDS


@pytest.mark.parametrize("family", list(cards()))
def test_every_family_trains_and_exports(settings: DreamBooth, tmp_path: Path, family: str) -> None:
    method = dataclasses.replace(
        settings,
        model=f"tiny:{family}",
        prior=NoPrior(),
        text_encoder=family in ("sd1", "sd2", "sdxl", "sd3"),
    )
    run = Run(method=method, output=str(tmp_path), name=family, loop=Loop(steps=2, batch_size=2, log_every=1))
    folder = run_to_end(run)
    assert folder.status() == "done"
    assert (folder.export / "pytorch_lora_weights.safetensors").is_file()


def test_full_finetuning_exports_a_whole_pipeline(settings: DreamBooth, tmp_path: Path) -> None:
    method = dataclasses.replace(settings, adapter=Full(), prior=NoPrior())
    run = Run(method=method, output=str(tmp_path), name="full", loop=Loop(steps=2, batch_size=2, log_every=1))
    assert (run_to_end(run).export / "merged" / "model_index.json").is_file()


def test_a_run_records_what_its_model_was_taken_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    load("tiny:sd1", Backend(CPU)).pipeline().save_pretrained(tmp_path / "model", safe_serialization=True)
    data = str(pictures(tmp_path / "subject", 1))
    method = DreamBooth(data=data, model=str(tmp_path / "model"), prior=NoPrior(), token="sks")
    preview = Preview(every=0)
    run = Run(method=method, output=str(tmp_path), name="one", loop=Loop(steps=1, batch_size=1), preview=preview,
              hardware=CPU, trackers=())  # fmt: skip
    folder = run_to_end(run)
    (start,) = folder.read_events("start")
    assert start["model"] == "Stable Diffusion 1.5 (sd15), told by its model_index.json and settings"
    show([str(folder.path)], Console())
    assert f"model: {start['model']}" in capsys.readouterr().out
