"""IP-Adapter: a second cross-attention that starts as a copy, weighs by lambda, and is read by diffusers."""

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from studio.adapters.build import attach
from studio.adapters.config import Lora
from studio.adapters.merge import bare
from studio.backend.core import Backend
from studio.backend.rng import Rng
from studio.backend.shard import Shard
from studio.contracts.sampling import Request
from studio.errors import StudioError
from studio.models.attention import Ordinary
from studio.models.build import load
from studio.models.draw import draw
from studio.models.presence import unwrap
from studio.models.vision_tower import square
from studio.settings.run import Hardware
from studio.weights import artifacts
from trainers.ip_adapter.check import through_diffusers
from trainers.ip_adapter.config import Global, IpAdapter, Patches, Plus, check
from trainers.ip_adapter.files import FILE
from trainers.ip_adapter.layers import Shown, _Decoupled, dropped, reads_text, text_layers
from trainers.ip_adapter.trainer import IpAdapterTrainer

KINDS = {"global": Global(), "plus": Plus(queries=3, heads=1, width=16), "patches": Patches()}
PICTURES = [Image.new("RGB", (40, 30), "red"), Image.new("RGBA", (9, 50), (0, 200, 0, 90))]


@pytest.fixture(scope="module")
def backend():
    return Backend(Hardware(device="cpu", precision="fp32"))


def made(backend, **values):
    trainer = IpAdapterTrainer(
        IpAdapter(**{"model": "tiny:sd1", "encoder": "tiny:clip", "precision": "fp32"} | values)
    )
    trainer.backend = backend
    with backend.seeded(0):
        trainer.groups = trainer.setup(backend)
    return trainer


@pytest.fixture(scope="module")
def trainer(backend):
    return made(backend)


@pytest.fixture(scope="module")
def trained(backend, tmp_path_factory):
    """A trainer whose weights have moved, and its export."""
    trainer = made(backend)
    with torch.no_grad(), backend.seeded(1):
        for value in trainer.network.parameters():
            value.add_(0.1 * torch.randn_like(value))
    folder = tmp_path_factory.mktemp("export")
    trainer.export(folder)
    return trainer, folder


def noisy(family, rows=2):
    x = torch.randn(rows, *family.latent_shape(64, 64), generator=torch.Generator().manual_seed(0))
    return x, torch.full((rows,), 0.5), family.embed(["a dog", "a cat"][:rows])


def picture(family, edit, references, **values):
    request = Request(prompts=["a dog"], steps=2, seed=3, edits=[edit], references=references, **values)
    return draw(family, request)[0].tobytes()


def test_keys_and_values_start_as_the_layers_own(trainer):
    for number, (_, layer) in enumerate(text_layers(trainer.family)):
        ours = trainer.network.ip_adapter[str(2 * number + 1)]
        key, value = reads_text(layer)
        assert torch.equal(ours.to_k_ip.weight, key.weight)
        assert torch.equal(ours.to_v_ip.weight, value.weight)


def test_text_tokens_as_image_tokens_double_what_the_output_projection_reads(trainer):
    name, layer = text_layers(trainer.family)[0]
    tokens = trainer.family.embed(["a dog"]).tokens
    query, key, value = (torch.randn(1, 4, 5, 8), *(
        torch.unflatten(project(tokens), 2, (4, -1)).transpose(1, 2) for project in reads_text(layer)))  # fmt: skip
    plain = Ordinary(None, slice(0, 0))
    attend = _Decoupled(trainer.network.ip_adapter, {name: "1"}, Shown(tokens, 1.0))
    found = attend(query, key, value, layer=name, scale=8**-0.5, ordinary=plain)
    assert torch.allclose(found, 2 * plain(query, key, value), atol=1e-5)


def test_a_layer_is_affine_in_lambda(trainer):
    name, _ = text_layers(trainer.family)[0]
    query, key = torch.randn(1, 4, 5, 8), torch.randn(1, 4, 6, 8)
    outputs = [
        _Decoupled(trainer.network.ip_adapter, {name: "1"}, Shown(torch.ones(1, 3, 32), scale))(
            query, key, key, layer=name, scale=1.0, ordinary=Ordinary(None, slice(0, 0))
        )
        for scale in (0.0, 0.5, 1.0)
    ]
    assert torch.allclose(outputs[1] - outputs[0], outputs[2] - outputs[1], atol=1e-6)


@pytest.mark.parametrize("model", ["tiny:sd1", "tiny:sdxl", "tiny:sd3", "tiny:flux"])
def test_lambda_0_is_the_base_model_exactly(backend, model):
    trainer = made(backend, model=model)
    x, t, cond = noisy(trainer.family)
    with torch.no_grad():
        base = trainer.family.predict(x, t, cond)
        tokens = torch.randn(2, 4, trainer.network.image_proj.norm.weight.shape[0])
        with trainer.network.shown(trainer.family, tokens, 0.0):
            assert torch.equal(trainer.family.predict(x, t, cond), base)
        with trainer.network.shown(trainer.family, tokens, 1.0):
            assert not torch.allclose(trainer.family.predict(x, t, cond), base)
        assert torch.equal(trainer.family.predict(x, t, cond), base)  # and it leaves no trace


def test_rows_are_dropped_at_their_rates():
    chance = torch.rand(10_000, generator=torch.Generator().manual_seed(0))
    no_text, no_image = dropped(chance, text=0.05, image=0.05, both=0.05)
    shares = [(no_text & ~no_image), (~no_text & no_image), (no_text & no_image)]
    assert all(abs(float(share.float().mean()) - 0.05) < 0.01 for share in shares)


def test_a_dropped_picture_is_a_zero_vector_that_goes_through_the_projection(trainer):
    blank = trainer.tower.blank()
    assert not blank.pooled.any()
    tokens = trainer.network(blank)
    assert torch.equal(tokens, trainer.network.image_proj(torch.zeros(1, trainer.tower.pooled_width)))
    assert tokens.abs().max() > 0


def test_only_the_adapter_learns(trainer):
    batch = next(iter(trainer.source().stream(0, 0, Shard(2, 0, 2))))
    trainer.loss(batch, Rng.single(0, 1, 2)).total.backward()
    assert all(p.grad is not None for p in trainer.network.parameters())
    assert all(p.grad is None for m in trainer.family.modules().values() for p in m.parameters())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("model", ["tiny:sd1", "tiny:sdxl"])
def test_diffusers_reads_what_is_exported(backend, tmp_path, kind, model):
    trainer = made(backend, projection=KINDS[kind], model=model)
    with torch.no_grad(), backend.seeded(1):
        for value in trainer.network.parameters():
            value.add_(0.1 * torch.randn_like(value))
    path = trainer.export(tmp_path)[0]
    x, t, cond = noisy(trainer.family, rows=1)
    with torch.no_grad():
        seen = trainer.tower(square(PICTURES[0], 32)[None])
        with trainer.network.shown(trainer.family, trainer.network(seen)):
            ours = trainer.family.predict(x, t, cond)
        theirs = through_diffusers(path, trainer.family, seen).predict(x, t, cond)
    assert torch.allclose(ours, theirs, atol=1e-5)


def test_a_whole_diffusers_pipeline_draws_with_the_file_and_its_encoder(trained, tmp_path):
    trainer, folder = trained
    trainer.tower.model.save_pretrained(tmp_path / "image_encoder")
    pipeline = trainer.family.pipeline()
    pipeline.register_modules(unet=bare(unwrap(trainer.family.denoiser)))
    pipeline.load_ip_adapter(
        str(folder), subfolder="", weight_name="ip_adapter.safetensors", image_encoder_folder=str(tmp_path / "image_encoder"),
        low_cpu_mem_usage=False, local_files_only=True,
    )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    drawn = pipeline("a dog", ip_adapter_image=PICTURES[0], num_inference_steps=2, height=64, width=64).images
    assert drawn[0].size == (64, 64)


@pytest.mark.parametrize("kind", KINDS)
def test_an_export_is_an_artifact_that_draws_like_the_trainer(backend, tmp_path, kind):
    trainer = made(backend, projection=KINDS[kind])
    trainer.export(tmp_path)
    loaded = artifacts.load(tmp_path, trainer.family)
    request = Request(prompts=["a dog"], steps=2, seed=3, references=PICTURES)
    ours = trainer.sample(request, Rng.single(3, 0, 1)).images[0].tobytes()
    assert picture(trainer.family, loaded.edit, PICTURES) == ours


def test_references_change_the_picture_and_their_order_does_not(trained):
    trainer, folder = trained
    family = trainer.family
    edit = artifacts.load(folder, family).edit
    both = picture(family, edit, PICTURES)
    assert both != picture(family, edit, PICTURES[:1])
    turned = picture(family, edit, PICTURES[::-1])
    assert (
        max(abs(x - y) for x, y in zip(both, turned, strict=True)) <= 1
    )  # sums in another order round differently


def test_strength_0_draws_the_base_model(trained):
    trainer, folder = trained
    family = trainer.family
    plain = draw(family, Request(prompts=["a dog"], steps=2, seed=3))[0].tobytes()
    assert picture(family, artifacts.load(folder, family, 0.0).edit, PICTURES) == plain
    assert picture(family, artifacts.load(folder, family).edit, PICTURES) != plain


def test_it_stacks_on_a_lora(trained, backend):
    _, folder = trained
    family = load("tiny:sd1", backend)
    attach(Lora(rank=2), {"unet": family.denoiser})
    assert picture(family, artifacts.load(folder, family).edit, PICTURES)


def test_no_reference_is_a_clear_error(trained):
    trainer, folder = trained
    with pytest.raises(StudioError, match="no reference picture"):
        picture(trainer.family, artifacts.load(folder, trainer.family).edit, [])


def test_a_public_file_alone_is_an_artifact_with_the_encoder_beside_it(trained, tmp_path):
    trainer, folder = trained
    save_file(load_file(folder / "ip_adapter.safetensors"), tmp_path / "public.safetensors")
    with pytest.raises(StudioError, match="does not tell its image encoder"):
        artifacts.load(tmp_path / "public.safetensors", trainer.family)
    trainer.tower.model.save_pretrained(tmp_path / "image_encoder")
    found = artifacts.load(tmp_path / "public.safetensors", trainer.family)
    ours = artifacts.load(folder, trainer.family)
    assert picture(trainer.family, found.edit, PICTURES) == picture(trainer.family, ours.edit, PICTURES)


@pytest.mark.parametrize("alone", [False, True], ids=["a folder", "a public file"])
@pytest.mark.parametrize("kind", KINDS)
def test_training_goes_on_from_exported_weights(backend, tmp_path, kind, alone):
    before = made(backend, projection=KINDS[kind])
    with torch.no_grad(), backend.seeded(1):
        for value in before.network.parameters():
            value.add_(0.1 * torch.randn_like(value))
    before.export(tmp_path)
    if alone:
        (tmp_path / "method.json").unlink()
    start = str(tmp_path / FILE if alone else tmp_path)
    settings = IpAdapter(model="tiny:sd1", encoder="tiny:clip", projection=KINDS[kind], start=start)
    check(settings)
    after = made(backend, projection=KINDS[kind], start=start).network.state_dict()
    for key, value in before.network.state_dict().items():
        assert torch.equal(value, after[key]), key


def test_weights_that_do_not_fit_are_not_gone_on_from(trained, backend):
    _, folder = trained
    with pytest.raises(
        StudioError, match="trained with encoder 'tiny:clip', and these settings have 'studio-tiny-clip'"
    ):
        check(IpAdapter(start=str(folder)))
    with pytest.raises(StudioError, match="has the projection global, and these settings patches; set it"):
        made(backend, projection=Patches(), start=str(folder))
    with pytest.raises(StudioError, match="made for another model than this sdxl") as refused:
        made(backend, model="tiny:sdxl", start=str(folder))
    assert refused.value.field == "start"


def test_a_file_of_another_model_or_encoder_is_refused(trained, backend, tmp_path):
    _, folder = trained
    with pytest.raises(StudioError, match="was made for another model"):
        artifacts.load(folder, load("tiny:sdxl", backend))
    values = load_file(folder / "ip_adapter.safetensors")
    save_file(values, tmp_path / "x.safetensors")
    small = CLIPVisionConfig(hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
                             image_size=16, patch_size=8, projection_dim=8)  # fmt: skip
    CLIPVisionModelWithProjection(small).save_pretrained(tmp_path / "image_encoder")
    with pytest.raises(StudioError, match="reads 24 numbers from its image encoder"):
        artifacts.load(tmp_path / "x.safetensors", load("tiny:sd1", backend))


def test_a_face_adapter_is_refused(trained, backend, tmp_path):
    _, folder = trained
    values = {k: v for k, v in load_file(folder / "ip_adapter.safetensors").items() if "ip_adapter" in k}
    save_file(values | {"image_proj.proj.0.weight": torch.zeros(2, 2)}, tmp_path / "face.safetensors")
    with pytest.raises(StudioError, match="FaceID"):
        artifacts.load(tmp_path / "face.safetensors", load("tiny:sd1", backend))


def test_drops_that_leave_nothing_are_refused():
    with pytest.raises(StudioError, match="stay below 1"):
        IpAdapter(drop_text=0.5, drop_image=0.5)


def test_previews_look_at_held_out_views_and_score_what_they_are_worth(trainer):
    prompts = trainer.prompts()
    drawn = trainer.sample(Request(prompts=prompts[:2], steps=1, guidance=1.0), Rng.single(0, 0, 2))
    assert len(prompts) == trainer.config.num_shown
    assert len(drawn.images) == 2
    found = trainer.score(drawn, Request())
    assert found["quality"] == pytest.approx(1 - found["loss_true"] / found["loss_shuffled"])
