"""Controllable generation with OFT: the hint starts at nothing, learns, and a picture's agreement is measured."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from studio.adapters.config import Lora, Oft
from studio.adapters.orthogonal import rotated_layers
from studio.backend.core import Backend
from studio.backend.rng import Rng
from studio.backend.shard import Shard
from studio.catalog.run import Run
from studio.contracts.sampling import Request
from studio.data.config import Images
from studio.data.scenes import SceneSource
from studio.data.sticker_config import Stickers
from studio.errors import StudioError
from studio.models.build import load
from studio.settings.run import Hardware, Loop, Optim
from studio.training.train import run_to_end
from studio.training.verify import verify_resume
from studio.weights import artifacts
from trainers.oft.config import Colors, Edges, OftControl, Regions
from trainers.oft.control import agreement, signal
from trainers.oft.hint import HintEncoder, hint_encoder, hinted
from trainers.oft.trainer import OftControlTrainer

HARDWARE = Hardware(device="cpu", precision="fp32")
ADAPTER = Oft(block_size=8)
SCENES = Stickers(num_concepts=4)


def settings(**values):
    return OftControl(**{"model": "tiny:sd1", "adapter": ADAPTER, "scenes": SCENES, "num_shown": 2} | values)


def run(folder: Path, method: OftControl, name: str, steps: int = 3) -> Run:
    loop = Loop(steps=steps, batch_size=2, log_every=1, checkpoint_every=0)
    return Run(
        method=method, output=str(folder), name=name, loop=loop, optim=Optim(lr=1e-3), hardware=HARDWARE
    )


@pytest.fixture(scope="module")
def backend():
    return Backend(HARDWARE)


@pytest.fixture
def trainer(backend):
    made = OftControlTrainer(settings())
    made.backend = backend
    with backend.seeded(0):
        made.groups = made.setup(backend)
    return made


@pytest.fixture
def batch(trainer):
    return next(trainer.source().stream(0, 0, Shard(2, 0, 2)))


@pytest.fixture(scope="module")
def pictures():
    return next(SceneSource(SCENES).stream(0, 0, Shard(4, 0, 4)))["images"]


# ---- signals


@pytest.mark.parametrize("control", [Edges(), Colors(), Regions()])
def test_picture_agrees_with_its_own_signal_most(control, pictures):
    wanted = signal(control, pictures)
    assert wanted.shape == pictures.shape
    assert 0 <= float(wanted.min()) <= float(wanted.max()) <= 1
    own, other = agreement(control, wanted, pictures), agreement(control, wanted, pictures.roll(1, 0))
    assert (own > 0.9).all()
    assert (own > other).all()


def test_a_picture_of_one_even_color_agrees_with_no_layout(pictures):
    wanted = signal(Colors(), pictures)
    even = pictures.mean((2, 3), keepdim=True).expand_as(pictures)
    half = (pictures + even) / 2
    assert agreement(Colors(), wanted, even).max() < 0.05
    torch.testing.assert_close(agreement(Colors(), wanted, half), torch.full((4,), 0.75), atol=1e-3, rtol=0)


def test_agreement_of_regions_is_the_mean_overlap_of_the_colors_of_the_signal():
    wanted, shown = -torch.ones(1, 3, 16, 16), -torch.ones(1, 3, 16, 16)
    wanted[..., :8, :], shown[..., :4, :] = 1, 1  # half of the picture is white, or a quarter
    levels = Regions(levels=2)
    signals = [signal(levels, picture) for picture in (wanted, shown)]
    assert [float(s.mean()) for s in signals] == [0.5, 0.25]
    found = float(agreement(levels, signals[0], shown))
    assert found == pytest.approx((4 / 8 + 8 / 12) / 2)


def test_layout_has_as_many_cells_as_asked_for(pictures):
    wanted = signal(Colors(cells=2), pictures)
    assert torch.equal(wanted[..., :32, :32], wanted[..., :1, :1].expand(-1, -1, 32, 32))


def test_regions_are_few(pictures):
    assert len(signal(Regions(levels=3), pictures).unique()) <= 3


def test_empty_edge_range_is_refused():
    with pytest.raises(StudioError, match="is not below high"):
        Edges(low=0.3, high=0.2)


# ---- the hint


@pytest.mark.parametrize("shrink", [2, 8, 16])
def test_hint_is_zero_at_first_and_as_small_as_the_features(shrink):
    found = HintEncoder(24, shrink)(torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
    assert found.shape == (2, 24, 64 // shrink, 64 // shrink)
    assert not found.any()


@pytest.mark.parametrize("control", [Edges(), Colors(), Regions()])
def test_the_features_of_a_hint_keep_their_size_and_tell_signals_apart(control, pictures, backend):
    with backend.seeded(0):
        encoder = HintEncoder(24, 8)
    seen = encoder.layers[:-1](2 * signal(control, pictures) - 1)
    assert 0.1 < seen.std() < 10
    assert seen.std(0).mean() > seen.std() / 4


@pytest.mark.parametrize("name", ["sd1", "sd3", "flux", "z-image", "flux2-klein"])
def test_hint_enters_every_kind_of_denoiser(name, backend):
    family = load(f"tiny:{name}", backend)
    generator = torch.Generator().manual_seed(0)
    x, t = torch.randn(2, *family.latent_shape(64, 64), generator=generator), torch.full((2,), 0.5)
    cond = family.with_guidance(family.embed(["a cat", "a dog"]), 1.0)
    encoder = hint_encoder(family)
    pictures = torch.rand(2, 3, 64, 64, generator=generator)
    with torch.no_grad():
        before = family.predict(x, t, cond)
        with hinted(family, encoder(pictures)):
            assert torch.equal(family.predict(x, t, cond), before)
        torch.nn.init.normal_(encoder.layers[-1].weight, std=0.1, generator=generator)
        with hinted(family, encoder(pictures)):
            changed = family.predict(x, t, cond)
        assert (changed - before).abs().flatten(1).amax(1).min() > 1e-4
        assert torch.equal(family.predict(x, t, cond), before)


def test_both_halves_of_guidance_get_the_hint(backend):
    family = load("tiny:sd1", backend)
    x, t = torch.zeros(1, *family.latent_shape(64, 64)), torch.full((1,), 0.5)
    cond, other = family.embed(["a cat"]), family.embed([""])
    features = torch.ones(1, family.denoiser.conv_in.out_channels, 8, 8)
    with torch.no_grad(), hinted(family, features):
        both = family.predict(torch.cat([x, x]), torch.cat([t, t]), other.cat(cond))
        alone = family.predict(x, t, cond)
    torch.testing.assert_close(both[1:], alone)


# ---- training


def test_only_rotations_and_the_hint_train(trainer, batch):
    assert {group.name for group in trainer.groups} == {"denoiser-0", "hint"}
    assert trainer.groups[0].weight_decay == 0
    trainer.loss(batch, Rng.single(0, 1, 2)).total.backward()
    with_gradient = {k for k, v in trainer.family.denoiser.named_parameters() if v.grad is not None}
    assert with_gradient == trainer.groups[0].names
    assert trainer.hint.layers[-1].weight.grad.abs().max() > 0


def test_hint_learns_beyond_its_last_layer_after_one_step(trainer, batch):
    optimizer = torch.optim.SGD(trainer.hint.parameters(), lr=1.0)
    trainer.loss(batch, Rng.single(0, 1, 2)).total.backward()
    optimizer.step()
    optimizer.zero_grad()
    trainer.loss(batch, Rng.single(0, 2, 2)).total.backward()
    assert trainer.hint.layers[0].weight.grad.abs().max() > 0


def test_coft_is_projected_after_each_step(backend):
    made = OftControlTrainer(settings(adapter=Oft(block_size=8, radius=0.1)))
    made.backend = backend
    made.setup(backend)
    layers = [layer for _, layer in rotated_layers(made.family.denoiser)]
    for layer in layers:
        torch.nn.init.ones_(layer.rotation.weight)
    made.after_step(1)
    for layer in layers:
        blocks = layer.rotation.rotations().detach()
        assert float((blocks - torch.eye(8)).norm()) <= 0.1 * (1 + 1e-5)


def test_dropped_hints_change_the_loss(trainer, batch):
    torch.nn.init.ones_(trainer.hint.layers[-1].weight)
    kept = trainer.loss(batch, Rng.single(0, 1, 2)).total
    trainer.config = settings(drop_hint=0.99)
    assert not torch.equal(trainer.loss(batch, Rng.single(0, 1, 2)).total, kept)


def test_previews_follow_held_out_signals_and_are_scored(trainer):
    request = Request(prompts=trainer.prompts(), num_images=2, steps=2, guidance=2.0)
    output = trainer.sample(request, Rng.single(0, 0, 4))
    assert [image.size for image in output.images] == [(64, 64)] * 4
    scores = trainer.score(output, request)
    assert 0 <= scores["quality"] == scores["agreement"] <= 1
    assert scores["orthogonality_error"] == 0


def test_references_take_the_place_of_held_out_signals(trainer):
    torch.nn.init.normal_(trainer.hint.layers[-1].weight, generator=torch.Generator().manual_seed(0))
    plain = Image.new("RGB", (32, 32), "red")
    request = Request(prompts=["a cat"], steps=2, guidance=1.0, references=[plain])
    drawn = trainer.sample(request, Rng.single(0, 0, 1)).images[0]
    own = trainer.sample(Request(prompts=["a cat"], steps=2, guidance=1.0), Rng.single(0, 0, 1)).images[0]
    assert drawn.tobytes() != own.tobytes()


def test_run_writes_a_hint_and_an_adapter_that_load_back(tmp_path, backend):
    folder = run_to_end(run(tmp_path, settings(control=Colors(), adapter=Lora(rank=2)), "lora"))
    assert (folder.export / "pytorch_lora_weights.safetensors").exists()
    rotated = run_to_end(run(tmp_path, settings(), "oft"))
    values = load_file(rotated.export / "hint.safetensors")
    assert any(value.any() for key, value in values.items() if key.startswith("layers.14."))
    family = load("tiny:sd1", backend)
    artifacts.load(rotated.path, family, name="again")
    layers = [layer for _, layer in rotated_layers(family.denoiser, "again")]
    assert layers
    assert all(layer.rotation.weight.any() for layer in layers)


def test_resumed_run_is_the_uninterrupted_one(tmp_path):
    method = settings(adapter=Oft(block_size=8, lengths="learned", dropout=0.2), drop_hint=0.3)
    assert verify_resume(run(tmp_path, method, "resume"), steps=2, at=1) == []


def test_folder_of_pictures_will_do(tmp_path, backend, pictures):
    for index, picture in enumerate(pictures[:2]):
        array = ((picture + 1) * 127.5).byte().movedim(0, -1).numpy()
        Image.fromarray(array).save(tmp_path / f"{index}.png")
        (tmp_path / f"{index}.txt").write_text("a sticker")
    made = OftControlTrainer(settings(data=str(tmp_path)))
    made.backend = backend
    made.setup(backend)
    batch = next(made.source().stream(0, 0, Shard(2, 0, 2)))
    assert torch.isfinite(made.loss(batch, Rng.single(0, 1, 2)).total)
    assert made.prompts() == ["a sticker", "a sticker"]


# ---- refusals


def test_missing_folder_is_refused():
    with pytest.raises(
        StudioError, match="'nowhere' does not exist; --data takes a folder of pictures, or stickers"
    ):
        OftControlTrainer(settings(data="nowhere"))


def test_cache_is_refused():
    with pytest.raises(StudioError, match="would leave no pictures to take signals from"):
        OftControlTrainer(settings(images=Images(cache="latents")))
