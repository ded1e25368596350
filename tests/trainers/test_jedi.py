"""JeDi: what the specification promises (arXiv 2407.06187; docs of the method), on tiny models."""

import dataclasses

import pytest
import torch
from PIL import Image

from studio.adapters.config import Full, Lora
from studio.backend.core import Backend
from studio.backend.rng import Rng
from studio.backend.shard import Shard
from studio.contracts.condition import Condition
from studio.contracts.sampling import PlainEdit, Request
from studio.data.set_config import StickerSets
from studio.data.sticker_config import Stickers
from studio.diffusion.guidance import Guidance
from studio.errors import StudioError
from studio.models.build import load
from studio.models.draw import draw
from studio.records import trained
from studio.same_subject import references
from studio.settings.run import Hardware
from studio.weights import artifacts
from trainers.jedi.config import Jedi, Joint, TextOnly, TwoScales, check
from trainers.jedi.edit import JediEdit
from trainers.jedi.model import Members, predict, reference_input
from trainers.jedi.trainer import JediTrainer

HARDWARE = Hardware(device="cpu", precision="fp32")
DATA = StickerSets(scenes=Stickers(num_concepts=4))
PICTURES = [Image.new("RGB", (90, 50), "teal"), Image.new("L", (40, 40), 90)]


def started(**changes):
    """A trainer on a tiny model whose widened input is not zero any more."""
    trainer = JediTrainer(Jedi(**{"model": "tiny:sd1", "data": DATA, **changes}))
    trainer.backend = Backend(HARDWARE)
    with trainer.backend.seeded(0):
        trainer.setup(trainer.backend)
        torch.nn.init.normal_(trainer.inputs.weight, std=0.05)
    return trainer


@pytest.fixture(scope="module")
def trainer():
    return started(set_sizes=(3,))


def batch_of(trainer, count=2):
    return next(trainer.source().stream(0, 0, Shard(count, 0, count)))


def members(family, b=2, n=3, given=(False, True, True)):
    generator = torch.Generator().manual_seed(0)
    x_t, clean = torch.randn(2, b, n, *family.latent_shape(64, 64), generator=generator)
    return Members(x_t, torch.full((b,), 0.5), clean, torch.tensor([given] * b))


def told(family, count, prompt="a dog"):
    with torch.no_grad():
        return family.embed([prompt] * count)


@torch.no_grad()
def test_nothing_given_and_nothing_coupled_is_the_base_model_even_after_training(trainer):
    sets = members(trainer.family).without_references()
    found = predict(trainer.family, trainer.inputs, sets, told(trainer.family, 6))
    plain = trainer.family.predict(sets.x_t.flatten(0, 1), torch.full((6,), 0.5), told(trainer.family, 6))
    torch.testing.assert_close(found.flatten(0, 1), plain, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_only_the_latents_of_references_are_looked_at(trainer):
    sets = members(trainer.family)
    cond = told(trainer.family, 6)
    before = predict(trainer.family, trainer.inputs, sets, cond)
    hidden, shown = sets.clean.clone(), sets.clean.clone()
    hidden[:, 0] += 1
    shown[:, 1] += 1
    same = predict(trainer.family, trainer.inputs, dataclasses.replace(sets, clean=hidden), cond)
    other = predict(trainer.family, trainer.inputs, dataclasses.replace(sets, clean=shown), cond)
    assert torch.equal(same, before)
    assert not torch.allclose(other[:, 0], before[:, 0], atol=1e-6)


def drawn(trainer, guide, text, references_scale=1.0):
    """Guided predictions, and the three that they are made of."""
    config = dataclasses.replace(trainer.config, guide=guide)
    edit = JediEdit(config, trainer.family, trainer.inputs, references_scale)
    request = Request(prompts=["a"], references=PICTURES, height=64, width=64, edits=[edit])
    edit.begin(request, None)
    x_t = torch.randn(2, *trainer.family.latent_shape(64, 64), generator=torch.Generator().manual_seed(1))
    edit.start(x_t, Rng.single(0, 1, 2))
    cond, uncond, t = told(trainer.family, 2), told(trainer.family, 2, ""), torch.full((2,), 0.5)
    with torch.no_grad():
        asked = edit.predict(x_t, t, cond=cond, uncond=uncond, guidance=Guidance(text))
        e_ry, e_r0 = (
            edit.predict(x_t, t, cond=one, uncond=None, guidance=Guidance(text)) for one in (cond, uncond)
        )
        e_00 = trainer.family.predict(x_t, t, uncond)
    return asked, e_00, e_r0, e_ry


@pytest.mark.parametrize(
    ("guide", "s_t", "s_i"),
    [
        (TwoScales(references=0.0), 0.0, 0.0),
        (TwoScales(references=1.0), 1.0, 1.0),
        (TwoScales(references=3.0), 5.0, 3.0),
        (Joint(), 4.0, 4.0),
        (TextOnly(), 4.0, 1.0),
    ],
)
def test_every_guide_is_the_general_form_with_its_scales(trainer, guide, s_t, s_i):
    asked, e_00, e_r0, e_ry = drawn(trainer, guide, s_t)
    torch.testing.assert_close(asked, e_00 + s_i * (e_r0 - e_00) + s_t * (e_ry - e_r0), atol=1e-5, rtol=1e-4)


def test_strength_is_a_factor_on_the_scale_of_the_references(trainer):
    asked, e_00, e_r0, e_ry = drawn(trainer, Joint(), 4.0, references_scale=0.5)
    torch.testing.assert_close(asked, e_00 + 2 * (e_r0 - e_00) + 4 * (e_ry - e_r0), atol=1e-5, rtol=1e-4)


def losses(trainer, **changes):
    trainer.config = dataclasses.replace(trainer.config, **changes)
    return trainer.loss(batch_of(trainer), Rng.single(0, 1, 2))


def test_a_loss_on_targets_leaves_references_out():
    trainer = started(set_sizes=(3,), min_references=1, drop_references=0.0)
    on_all, on_targets = losses(trainer, loss_on="all"), losses(trainer, loss_on="targets")
    parts = on_targets.parts
    assert torch.equal(on_targets.total, parts["loss_targets"])
    assert not torch.equal(on_all.total, on_targets.total)
    given = parts["references"] / 3
    mixed = given * parts["loss_references"] + (1 - given) * parts["loss_targets"]
    torch.testing.assert_close(on_all.total, mixed)


def test_dropped_references_leave_nothing_given():
    assert float(losses(started(min_references=1), drop_references=1.0).parts["references"]) == 0.0


def test_the_number_of_references_is_uniform_from_the_fewest_to_all_but_one(trainer):
    counts = trainer._given(600, 4, Rng.single(0, 0, 600)).sum(1)
    assert counts.bincount(minlength=5)[4] == 0
    assert all(100 < number < 200 for number in counts.bincount()[:4])


def test_captions_are_dropped_by_set_and_those_of_references_apart(trainer):
    trainer.config = dataclasses.replace(trainer.config, drop_text=0.0, drop_reference_text=1.0)
    given = torch.tensor([[True, False, True]])
    assert trainer._captions([["a", "b", "c"]], given, Rng.single(0, 0, 1)) == ["", "b", ""]
    trainer.config = dataclasses.replace(trainer.config, drop_text=1.0)
    assert trainer._captions([["a", "b", "c"]], given, Rng.single(0, 0, 1)) == ["", "", ""]


def test_padding_has_no_loss_and_no_gradient():
    trainer = started(set_sizes=(3,), drop_references=0.0, drop_text=0.0)
    batch = {**batch_of(trainer), "present": torch.tensor([[True, True, False]] * 2)}
    other = {**batch, "images": batch["images"].clone()}
    other["images"][:, 2] = 0.3
    totals, gradients = [], []
    for one in (batch, other):
        total = trainer.loss(one, Rng.single(0, 1, 2)).total
        (gradient,) = torch.autograd.grad(total, [trainer.inputs.weight])
        totals.append(total.detach())
        gradients.append(gradient)
    torch.testing.assert_close(*totals)
    torch.testing.assert_close(*gradients, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize(
    "adapter", [Full(keep_base=False), Lora(rank=2, only=("attn1.to_q", "attn1.to_out.0"))]
)
def test_an_export_draws_what_the_trainer_draws(adapter, tmp_path):
    trainer = started(adapter=adapter, precision="fp32")
    with torch.no_grad():
        for name, value in trainer.family.denoiser.named_parameters():
            if value.requires_grad and ("attn1" in name):
                value.add_(0.05)
    trainer.export(tmp_path)
    fresh = load("tiny:sd1", Backend(HARDWARE))
    loaded = artifacts.load(tmp_path, fresh)
    request = Request(prompts=["a dog"], references=PICTURES, steps=2, num_images=2)
    ours = trainer.sample(request, Rng.single(0, 0, 2)).images
    again = draw(fresh, dataclasses.replace(request, edits=[loaded.edit]), Rng.single(0, 0, 2))
    assert [one.tobytes() for one in ours] == [one.tobytes() for one in again]
    assert trained.find(tmp_path).settings["mask_convention"] == "1=reference"


@pytest.mark.parametrize("adapter", [Full(keep_base=False), Lora(rank=2)])
def test_training_goes_on_from_exported_weights(adapter, tmp_path):
    before = started(adapter=adapter, precision="fp32")
    with torch.no_grad():
        for value in before.family.denoiser.parameters():
            if value.requires_grad:
                value.add_(0.1 * torch.randn_like(value))
    before.export(tmp_path)
    settings = Jedi(model="tiny:sd1", data=DATA, adapter=adapter, start=str(tmp_path))
    check(settings)
    after = JediTrainer(settings)
    after.setup(Backend(HARDWARE))
    assert torch.equal(after.inputs.weight, before.inputs.weight)
    own = after.family.denoiser.state_dict()
    for key, value in before.family.denoiser.state_dict().items():
        assert torch.equal(value, own[key]), key
    other = Lora(rank=3) if isinstance(adapter, Full) else Full()
    with pytest.raises(StudioError, match=r"was trained with the adapter .* set it as it was") as refused:
        check(Jedi(model="tiny:sd1", data=DATA, adapter=other, start=str(tmp_path)))
    assert refused.value.field == "adapter"
    with pytest.raises(
        StudioError, match="was made for sd1, but the model is sdxl; load it on tiny:sd1"
    ) as refused:
        JediTrainer(dataclasses.replace(settings, model="tiny:sdxl")).setup(Backend(HARDWARE))
    assert refused.value.field == "start"


def test_pictures_depend_on_their_references_and_not_on_their_neighbors(trainer):
    edit = JediEdit(trainer.config, trainer.family, trainer.inputs)
    request = Request(prompts=["a dog"], references=PICTURES, steps=2, num_images=3, edits=[edit])
    together = draw(trainer.family, request)
    apart = draw(trainer.family, request, most=1)
    other = draw(trainer.family, dataclasses.replace(request, references=PICTURES[1:]))
    for one, two in zip(together, apart, strict=True):
        assert max(abs(a - b) for a, b in zip(one.tobytes(), two.tobytes(), strict=True)) <= 1
    assert other[0].tobytes() != together[0].tobytes()


def test_what_cannot_work_is_refused(trainer, tmp_path):
    with pytest.raises(StudioError, match="leaves nothing to draw"):
        check(Jedi(min_references=4))
    with pytest.raises(StudioError, match="no reference picture"):
        draw(
            trainer.family,
            Request(prompts=["a"], steps=1, edits=[JediEdit(trainer.config, trainer.family, trainer.inputs)]),
        )
    trainer.export(tmp_path)
    with pytest.raises(StudioError, match="made for sd1, but the model is sd3"):
        artifacts.load(tmp_path, load("tiny:sd3", Backend(HARDWARE)))
    with pytest.raises(StudioError, match="Strength -1 of a JeDi artifact is negative"):
        artifacts.load(tmp_path, load("tiny:sd1", Backend(HARDWARE)), -1.0)


def test_an_edit_that_changes_attention_is_refused(trainer):
    class Looks(PlainEdit):
        def attention(self, layer):
            return None

    edit = JediEdit(trainer.config, trainer.family, trainer.inputs)
    request = Request(prompts=["a"], references=PICTURES, steps=1, edits=[Looks(), edit])
    with pytest.raises(StudioError, match="cannot share it with Looks"):
        draw(trainer.family, request)


@pytest.mark.parametrize("name", ["sd3", "flux", "z-image", "flux2-klein"])
def test_transformers_train_and_draw_too(name):
    trainer = started(model=f"tiny:{name}", set_sizes=(2,), min_references=1)
    assert torch.isfinite(losses(trainer).total)
    picture = trainer.sample(
        Request(prompts=["a"], references=PICTURES, steps=1), Rng.single(0, 0, 1)
    ).images[0]
    assert picture.size == (64, 64)


def squares(family, count, seed):
    """Sets of a colored square on random backgrounds, as latents: (b 2 c 8 8)."""
    generator = torch.Generator().manual_seed(seed)
    channels = family.latent_shape(64, 64)[0]
    sets = 0.5 * torch.randn(count, 2, channels, 1, 1, generator=generator).expand(-1, -1, -1, 8, 8).clone()
    sets[..., 2:6, 2:6] = 2 * torch.randn(count, 1, channels, 1, 1, generator=generator)
    return sets


def distance(family, inputs, cond, sets, shown, seed):
    """How far the square of a target is from what the network makes of noise and of what it is shown."""
    eps = torch.randn(sets.shape, generator=torch.Generator().manual_seed(seed))
    t = torch.full((len(sets),), 0.9)
    x_t = family.process.add_noise(sets, eps, t)
    given = torch.tensor([[False, True]] * len(sets))
    found = predict(family, inputs, Members(x_t, t, shown, given), cond)
    x0 = family.process.x0(found[:, 0], x_t[:, 0], t, family.prediction)
    return (x0 - sets[:, 0])[..., 2:6, 2:6].square().mean()


def test_references_tell_what_to_draw_after_some_steps():
    """Section 10, test 7: with its own references a target's loss is below that with another set's."""
    family = load("tiny:sd3", Backend(HARDWARE))
    short = told(family, 1, "")
    cond = Condition(short.tokens[:, :2], short.pooled).rows([0] * 16)
    inputs = reference_input(family)
    family.denoiser.requires_grad_(True)
    optimizer = torch.optim.Adam([*family.denoiser.parameters(), *inputs.parameters()], lr=3e-3)
    for step in range(120):
        optimizer.zero_grad()
        sets = squares(family, 8, step)
        distance(family, inputs, cond, sets, sets, step).backward()
        optimizer.step()
    unseen = squares(family, 8, 1000)
    with torch.no_grad():
        true = distance(family, inputs, cond, unseen, unseen, 1000)
        shuffled = distance(family, inputs, cond, unseen, unseen.roll(1, 0), 1000)
    assert true < 0.7 * shuffled


def test_references_of_any_shape_are_taken(trainer):
    assert references.tensors(PICTURES, 64, 64).shape == (2, 3, 64, 64)
