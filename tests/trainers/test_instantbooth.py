"""InstantBooth: gates that start shut, a set of references without an order, one replaced row."""

import dataclasses
import json
import shutil

import pytest
import torch
from diffusers.models.attention import JointTransformerBlock
from PIL import Image

from studio.backend.core import Backend
from studio.backend.rng import Rng
from studio.backend.shard import Shard
from studio.contracts.sampling import Request
from studio.errors import StudioError
from studio.models.build import load
from studio.models.draw import draw
from studio.models.vision_tower import squares
from studio.settings.run import Hardware
from studio.weights import artifacts
from trainers.instantbooth.config import METHOD, InstantBooth, check
from trainers.instantbooth.networks import GatedAdapter, placed, positions, transformer_blocks
from trainers.instantbooth.places import grid, layer_for, waves
from trainers.instantbooth.trainer import InstantBoothTrainer

PICTURES = [
    Image.new("RGB", (40, 30), "red"), Image.new("RGBA", (9, 50), (0, 200, 0, 90)), Image.new("L", (20, 20), 90),
]  # fmt: skip


@pytest.fixture(scope="module")
def backend():
    return Backend(Hardware(device="cpu", precision="fp32"))


def made(backend, moved=0.0, **values):
    trainer = InstantBoothTrainer(
        InstantBooth(**{"model": "tiny:sd1", "encoder": "tiny:clip", "precision": "fp32"} | values)
    )
    trainer.backend = backend
    with backend.seeded(0):
        trainer.groups = trainer.setup(backend)
        if moved:
            with torch.no_grad():
                for value in trainer.network.parameters():
                    value.add_(moved * torch.randn_like(value))
    return trainer


KINDS = [("tiny:sd1", False), ("tiny:sd3", False), ("tiny:sd1", True), ("tiny:sd3", True)]
"""Models, and whether the adapters are told where tokens stand; with that, patches are finer too."""


@pytest.fixture(scope="module", params=KINDS)
def trainer(backend, request):
    """Before its first step: every gate is shut."""
    return made(backend, model=request.param[0], positions=request.param[1], tiles=1 + request.param[1])


@pytest.fixture(scope="module", params=KINDS)
def trained(backend, tmp_path_factory, request):
    """A trainer whose weights have moved, and its export."""
    trainer = made(
        backend, moved=0.3, model=request.param[0], positions=request.param[1], tiles=1 + request.param[1]
    )
    folder = tmp_path_factory.mktemp("export")
    trainer.export(folder)
    return trainer, folder


def noisy(family):
    x = torch.randn(2, *family.latent_shape(64, 64), generator=torch.Generator().manual_seed(0))
    return x, torch.full((2,), 0.5), family.embed(["a dog", "a cat"])


def predicted(trainer, pictures, beta=1.0):
    x, t, cond = noisy(trainer.family)
    with torch.no_grad():
        subject = trainer.network(trainer.tower(squares(pictures, trainer.tower)), len(pictures))
        with trainer.network.on(trainer.family, subject.patches.expand(2, -1, -1), torch.full((2,), beta)):
            return trainer.family.predict(x, t, cond)


def base(trainer):
    with torch.no_grad():
        return trainer.family.predict(*noisy(trainer.family))


def picture(family, edit, references, prompt="a sks dog", **values):
    request = Request(prompts=[prompt], steps=2, seed=3, edits=[edit], references=references, **values)
    return draw(family, request)[0].tobytes()


@pytest.mark.parametrize("number", [1, 3])
def test_a_shut_gate_is_the_base_model_exactly(trainer, number):
    assert torch.equal(predicted(trainer, PICTURES[:number]), base(trainer))


def test_beta_0_is_the_base_model_exactly_and_nothing_stays_behind(trained):
    trainer, _ = trained
    assert torch.equal(predicted(trainer, PICTURES, beta=0.0), base(trainer))
    assert not torch.allclose(predicted(trainer, PICTURES), base(trainer))
    assert torch.equal(base(trainer), base(trainer))


def test_references_are_a_set(trained):
    trainer, _ = trained
    assert torch.allclose(predicted(trainer, PICTURES), predicted(trainer, PICTURES[::-1]), atol=1e-5)
    with torch.no_grad():
        one, other = (
            trainer.network(trainer.tower(squares(p, trainer.tower)), len(p))
            for p in (PICTURES, PICTURES[::-1])
        )
    assert torch.allclose(one.concept, other.concept, atol=1e-6)


def test_tokens_of_references_lie_side_by_side(trainer):
    with torch.no_grad():
        subject = trainer.network(trainer.tower(squares(PICTURES, trainer.tower)), len(PICTURES))
    assert subject.patches.shape[1] == 3 * trainer.tower.num_tokens
    assert subject.concept.shape[0] == 1


def test_the_formula_of_a_layer(backend):
    block = next(iter(transformer_blocks(load("tiny:sd1", backend)).values()))
    with backend.seeded(0):
        adapter = GatedAdapter(block, 12)
    y, patches = torch.randn(2, 5, 32), torch.randn(2, 3, 12)
    with torch.no_grad():
        adapter.gamma.fill_(0.7)
        found = adapter(y, patches, torch.tensor([1.0, 0.25]))
        both = adapter.norm(torch.cat([y, adapter.patches(patches)], 1))
        heads = [
            torch.softmax(q @ k.transpose(1, 2) / q.shape[-1] ** 0.5, -1) @ v
            for q, k, v in zip(
                *(p(both).chunk(4, -1) for p in (adapter.to_q, adapter.to_k, adapter.to_v)), strict=True
            )
        ]
        wanted = torch.tensor(0.7).tanh() * adapter.to_out(torch.cat(heads, -1))[:, :5]
    assert torch.allclose(found, wanted * torch.tensor([1.0, 0.25])[:, None, None], atol=1e-5)


def test_positions_are_added_to_queries_and_keys_alone(backend):
    block = next(iter(transformer_blocks(load("tiny:sd1", backend)).values()))
    with backend.seeded(0):
        adapter = GatedAdapter(block, 12, tokens=5)
    y, f_p = torch.randn(2, 6, 32), torch.randn(2, 10, 12)
    with torch.no_grad():
        adapter.gamma.fill_(0.7)
        found = adapter(y, f_p, torch.ones(2), (20, 30))
        both = adapter.norm(torch.cat([y, adapter.patches(f_p)], 1))
        places = torch.cat([waves(2, 3, 32), *[torch.zeros(1, 32), waves(2, 2, 32)] * 2])
        where = adapter.place(places)
        heads = zip(
            (adapter.to_q(both) + where).chunk(4, -1), (adapter.to_k(both) + where).chunk(4, -1),
            adapter.to_v(both).chunk(4, -1), strict=True,
        )  # fmt: skip
        seen = [torch.softmax(q @ k.transpose(1, 2) / q.shape[-1] ** 0.5, -1) @ v for q, k, v in heads]
        wanted = torch.tensor(0.7).tanh() * adapter.to_out(torch.cat(seen, -1))[:, :6]
    assert torch.allclose(found, wanted, atol=1e-5)


def test_a_place_is_the_same_on_every_grid_and_most_like_itself():
    fine, coarse = waves(6, 9, 32).unflatten(0, (6, 9)), waves(2, 3, 32).unflatten(0, (2, 3))
    assert torch.allclose(fine[1::3, 1::3], coarse, atol=1e-5)
    with torch.no_grad():
        seen = layer_for(torch.nn.Linear(64, 64))(waves(8, 8, 64))
    assert torch.equal((seen @ seen.T).argmax(1), torch.arange(64))


@pytest.mark.parametrize(
    ("cells", "shape", "wanted"),
    [(64, (8, 8), (8, 8)), (24, (40, 60), (4, 6)), (6, (64, 96), (2, 3)), (7, (9, 9), (7, 1))],
)
def test_cells_are_laid_out_like_the_picture(cells, shape, wanted):
    assert set(grid(cells, shape)) == set(wanted)
    assert grid(cells, shape)[0] * grid(cells, shape)[1] == cells


def test_pictures_of_any_shape_are_drawn_with_positions(backend):
    trainer = made(backend, moved=0.3, model="tiny:sd3", positions=True)
    subject = trainer.network(trainer.tower(squares(PICTURES[:1], trainer.tower)), 1)
    x = torch.randn(1, *trainer.family.latent_shape(64, 96))
    with torch.no_grad(), trainer.network.on(trainer.family, subject.patches, torch.ones(1)):
        found = trainer.family.predict(x, torch.full((1,), 0.5), trainer.family.embed(["a dog"]))
    assert found.shape == x.shape


def test_several_views_of_a_step_are_one_subject(backend):
    trainer = made(backend, moved=0.3, num_views=3)
    batches = trainer.source().stream(0, 0, Shard(2, 0, 2))
    batch = next(b for b in batches if b["views"].shape[1] == 3)
    losses = [
        float(trainer.loss({**batch, "views": batch["views"][:, order]}, Rng.single(0, 1, 2)).total.detach())
        for order in ([0, 1, 2], [2, 0, 1], [0, 0, 0])
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert abs(losses[0] - losses[2]) > 1e-5


def test_at_shut_gates_the_gates_learn_and_their_attention_does_not(backend):
    trainer = made(backend)
    batch = next(iter(trainer.source().stream(0, 0, Shard(2, 0, 2))))
    trainer.loss(batch, Rng.single(0, 1, 2)).total.backward()
    for adapter in trainer.network.adapters.values():
        assert adapter.gamma.grad.abs() > 0
        assert not adapter.to_q.weight.grad.any()
        assert not adapter.to_out.weight.grad.any()
    assert trainer.network.concept_fc.weight.grad.any()
    assert all(p.grad is None for m in trainer.family.modules().values() for p in m.parameters())


def test_every_parameter_is_in_one_group_with_its_own_rate(trainer):
    groups = {group.name: group for group in trainer.groups}
    named = [name for group in trainer.groups for name in group.parameters()]
    assert sorted(named) == sorted(name for name, _ in trainer.network.named_parameters())
    assert groups["gate"].lr == trainer.config.gate_lr
    assert groups["fc"].lr == trainer.config.fc_lr
    assert groups["adapter"].lr is None
    assert all(name.endswith("gamma") for name in groups["gate"].names)


def test_checkpointed_activations_see_the_adapters_again(trained):
    gradients = []
    for saves in (False, True):
        trainer = made(
            Backend(Hardware(device="cpu", precision="fp32", gradient_checkpointing=saves)),
            moved=0.3,
            model=trained[0].config.model,
        )
        trainer.family.denoiser.train()
        batch = next(iter(trainer.source().stream(0, 0, Shard(2, 0, 2))))
        trainer.loss(batch, Rng.single(0, 1, 2)).total.backward()
        trainer.after_step(1)
        gradients.append([p.grad for p in trainer.network.parameters()])
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(*gradients, strict=True))


def test_only_the_rows_of_the_placeholder_change_and_alpha_scales_them(trainer):
    cond = trainer.family.embed(["a sks dog", "a dog by sks sks"])
    ids = trainer.family.tokenizers["tokenizer"].encode("sks", add_special_tokens=False)
    concept = torch.randn(2, cond.tokens.shape[-1])
    full, there = placed(cond, ids, concept)
    half, _ = placed(cond, ids, concept, 0.5)
    where = positions(cond.extra["ids"], ids)
    assert there.tolist() == [True, True]
    assert where.sum(1).tolist() == [len(ids), 2 * len(ids)]
    assert torch.equal(full.tokens[~where], cond.tokens[~where])
    assert torch.equal(half.tokens[~where], cond.tokens[~where])
    assert torch.allclose(half.tokens[where], 0.5 * full.tokens[where])
    assert torch.equal(full.tokens[0][where[0]][0], concept[0])


def test_a_word_of_several_tokens_is_found_whole():
    rows = torch.tensor([[7, 3, 4, 3, 3, 4], [3, 3, 5, 4, 3, 3]])
    assert positions(rows, [3, 4]).tolist() == [
        [False, True, True, False, True, True], [False] * 6,
    ]  # fmt: skip


def test_alpha_to_0_makes_key_and_value_of_the_token_zero(backend):
    block = next(iter(transformer_blocks(load("tiny:sd1", backend)).values()))
    assert block.attn2.to_k.bias is None
    row = 1e-9 * torch.randn(1, 32)
    assert float(block.attn2.to_k(row).abs().max()) < 1e-8
    assert float(block.attn2.to_v(row).abs().max()) < 1e-8


def test_a_prompt_without_the_placeholder_is_refused(trained):
    trainer, folder = trained
    with pytest.raises(StudioError, match="lacks 'sks'"):
        picture(trainer.family, artifacts.load(folder, trainer.family).edit, PICTURES, prompt="a dog")


def test_no_reference_is_a_clear_error(trained):
    trainer, folder = trained
    with pytest.raises(StudioError, match="no reference picture"):
        picture(trainer.family, artifacts.load(folder, trainer.family).edit, [])


def test_an_export_is_an_artifact_that_draws_like_the_trainer(trained):
    trainer, folder = trained
    edit = artifacts.load(folder, trainer.family).edit
    request = Request(prompts=["a sks dog"], steps=2, seed=3, references=PICTURES)
    ours = trainer.sample(request, Rng.single(3, 0, 1)).images[0].tobytes()
    assert picture(trainer.family, edit, PICTURES) == ours
    assert picture(trainer.family, edit, PICTURES[:1]) != ours


def test_strength_0_draws_the_base_model(trained):
    trainer, folder = trained
    family = trainer.family
    plain = draw(family, Request(prompts=["a sks dog"], steps=2, seed=3))[0].tobytes()
    assert picture(family, artifacts.load(folder, family, 0.0).edit, PICTURES) == plain
    assert picture(family, artifacts.load(folder, family).edit, PICTURES) != plain


def test_the_negative_half_sees_nothing(trained):
    trainer, folder = trained
    family = trainer.family
    edit = artifacts.load(folder, family).edit
    long = "a very long list of words " * 3
    same = picture(family, edit, PICTURES, guidance=3.0)
    assert same == picture(family, edit, PICTURES, guidance=3.0)
    assert same != picture(family, edit, PICTURES, guidance=3.0, negative=long)
    assert picture(family, edit, PICTURES, guidance=1.0) != same


def test_a_folder_of_another_model_is_refused(trained, backend):
    trainer, folder = trained
    with pytest.raises(StudioError, match=rf"does not fit this sdxl .* load it on {trainer.config.model}"):
        artifacts.load(folder, load("tiny:sdxl", backend))


def test_a_card_that_lost_a_setting_is_said(trained, tmp_path):
    trainer, folder = trained
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    card = json.loads((tmp_path / "method.json").read_text())
    del card["settings"]["alpha"]
    (tmp_path / "method.json").write_text(json.dumps(card))
    with pytest.raises(StudioError, match=r"method\.json is damaged \(KeyError: 'alpha'\)"):
        artifacts.load(tmp_path, trainer.family)


def test_training_goes_on_from_exported_weights(trained, backend):
    trainer, folder = trained
    config = trainer.config
    kind = {"model": config.model, "positions": config.positions, "tiles": config.tiles}
    again, fresh = made(backend, **kind, start=str(folder)), made(backend, **kind)
    assert torch.equal(predicted(again, PICTURES), predicted(trainer, PICTURES))
    assert not torch.allclose(predicted(again, PICTURES), predicted(fresh, PICTURES))


def test_weights_that_do_not_fit_are_not_gone_on_from(trained, backend, tmp_path):
    trainer, folder = trained
    positions = trainer.config.positions
    with pytest.raises(StudioError, match=f"positions {positions}, and these settings have {not positions}"):
        check(InstantBooth(encoder="tiny:clip", start=str(folder), positions=not positions))
    with pytest.raises(StudioError, match="is of jedi, and training goes on from weights of instantbooth"):
        check(InstantBooth(start="jedi-tiny"))
    with pytest.raises(StudioError, match="holds no exported weights") as refused:
        check(InstantBooth(start=str(tmp_path)))
    assert refused.value.field == "start"
    with pytest.raises(StudioError, match=r"does not fit this sdxl") as refused:
        made(backend, model="tiny:sdxl", positions=positions, start=str(folder))
    assert refused.value.field == "start"


def test_blocks_that_it_does_not_know_are_refused_and_ip_adapter_named(backend):
    with pytest.raises(StudioError, match="and flux has others; use ip_adapter"):
        made(backend, model="tiny:flux")


def test_in_joint_attention_a_layer_starts_as_the_pictures_side_and_comes_before_it(backend):
    trainer = made(backend, model="tiny:sd3", moved=0.3)
    name, block = next(iter(transformer_blocks(trainer.family).items()))
    assert isinstance(block, JointTransformerBlock)
    fresh = GatedAdapter(block, 12)
    assert torch.equal(fresh.to_k.bias, block.attn.to_k.bias.float())
    assert torch.equal(fresh.norm_q.weight, block.attn.norm_q.weight.float())
    entered = []
    block.norm1.register_forward_pre_hook(lambda _, args: entered.append(args[0]))
    outside = predicted(trainer, PICTURES, beta=0.0), predicted(trainer, PICTURES)
    assert not torch.equal(*outside)
    plain, told = entered
    with torch.no_grad():
        subject = trainer.network(trainer.tower(squares(PICTURES, trainer.tower)), len(PICTURES))
        adapter = trainer.network.adapters[name.replace(".", "/")]
        added = adapter(plain, subject.patches.expand(2, -1, -1), torch.ones(2))
    assert torch.allclose(told, plain + added, atol=1e-6)


def test_sdxl_rows_are_as_wide_as_both_encoders_and_blocks_can_be_chosen(backend):
    trainer = made(backend, model="tiny:sdxl", blocks="mid_block")
    assert trainer.network.concept_fc.out_features == 64
    assert all(name.startswith("mid_block") for name in trainer.network.adapters)
    with pytest.raises(StudioError, match="fits none"):
        made(backend, model="tiny:sdxl", blocks="nothing")


def test_a_folder_needs_words_for_the_class(tmp_path):
    with pytest.raises(StudioError, match="class-words"):
        METHOD.check(InstantBooth(data=str(tmp_path)))
    METHOD.check(InstantBooth(data=str(tmp_path), class_words=("dog",)))


def test_what_sampling_needs_is_written_down(trained):
    trainer, folder = trained
    told = json.loads((folder / "method.json").read_text())
    assert told["settings"]["placeholder"] == "sks"
    assert (told["settings"]["alpha"], told["settings"]["beta"]) == (0.4, 0.3)
    assert dataclasses.asdict(trainer.config)["alpha"] == 0.4
