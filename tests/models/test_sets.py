"""Coupled self-attention and the widened first layer: what stays the base model, and who sees whom."""

from dataclasses import replace

import pytest
import torch
from einops import rearrange

from studio.backend.core import Backend
from studio.models.build import load
from studio.models.entry import hinted, more_channels
from studio.models.sets import Coupling, coupling
from studio.settings.run import Hardware

NAMES = (
    "sd1",
    "sd3",
    "flux",
    "flux-kontext",
    "flux-fill",
    "chroma",
    "z-image",
    "flux2-klein",
    "flux2",
    "qwen-image",
    "qwen-image-edit",
    "krea2",
)


@pytest.fixture(scope="module")
def families():
    return {name: load(f"tiny:{name}", Backend(Hardware(device="cpu", precision="fp32"))) for name in NAMES}


def rows(family, count, seed=0):
    """Noise of some rows, and a caption for each."""
    generator = torch.Generator().manual_seed(seed)
    shape = family.latent_shape(family.default_size, family.default_size)
    with torch.no_grad():
        cond = family.embed([f"picture {index} {'of a dog ' * 4 * index}" for index in range(count)])
    return torch.randn(count, *shape, generator=generator), cond


@torch.no_grad()
def asked(family, x_t, cond, coupled=None):
    t = torch.full((len(x_t),), 0.5)
    if coupled is None:
        return family.predict(x_t, t, cond)
    with coupling(family, coupled):
        return family.predict(x_t, t, cond)


@pytest.mark.parametrize("name", NAMES)
def test_a_set_of_one_is_the_base_model_bit_for_bit(families, name):
    x_t, cond = rows(families[name], 3)
    plain = asked(families[name], x_t, cond)
    assert torch.equal(asked(families[name], x_t, cond, Coupling(1, axis=families[name].spare_axis)), plain)


@pytest.mark.parametrize("name", NAMES)
def test_uncoupled_sets_are_the_base_model(families, name):
    x_t, cond = rows(families[name], 4)
    plain = asked(families[name], x_t, cond)
    apart = asked(families[name], x_t, cond, Coupling(2, coupled=torch.tensor([False, False])))
    torch.testing.assert_close(apart, plain, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_a_change_of_one_member_reaches_its_set_and_no_other(families, name):
    family = families[name]
    x_t, cond = rows(family, 4)
    before = asked(family, x_t, cond, Coupling(2, axis=family.spare_axis))
    changed = x_t.clone()
    changed[1] += 1
    after = asked(family, changed, cond, Coupling(2, axis=family.spare_axis))
    moved = (after - before).abs().flatten(1).amax(1) > 1e-6
    assert moved.tolist() == [True, True, False, False]


@pytest.mark.parametrize("name", ["sd1", "sd3"])
def test_permuted_members_with_their_captions_give_permuted_predictions(families, name):
    family = families[name]
    x_t, cond = rows(family, 6)
    order = torch.tensor([2, 0, 1, 4, 5, 3])
    straight = asked(family, x_t, cond, Coupling(3))
    permuted = asked(family, x_t[order], cond.rows(order), Coupling(3))
    torch.testing.assert_close(permuted, straight[order], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["flux", "z-image", "flux2-klein", "qwen-image", "krea2"])
def test_members_have_positions_of_their_own_where_an_axis_is_to_spare(families, name):
    family = families[name]
    x_t, cond = rows(family, 2)
    apart, together = (asked(family, x_t, cond, Coupling(2, axis=axis)) for axis in (family.spare_axis, 0))
    assert family.spare_axis > 0
    assert not torch.allclose(apart, together, atol=1e-6)


def test_the_padding_of_prompts_is_seen_by_nobody(families):
    family = families["qwen-image"]
    x_t, cond = rows(family, 4)
    coupled = Coupling(2, axis=family.spare_axis)
    padded = cond.padded(cond.tokens.shape[1] + 5)
    loud = replace(padded, tokens=padded.tokens + ~padded.extra["mask"].unsqueeze(-1) * 9.0)
    assert not cond.extra["mask"].all()
    torch.testing.assert_close(
        asked(family, x_t, loud, coupled), asked(family, x_t, cond, coupled), atol=1e-5, rtol=1e-4
    )


def test_a_place_on_the_spare_axis_is_that_of_the_family_itself(families):
    """Member 1 attending to itself alone is the family with 1 on the first axis of all picture tokens."""
    family = families["flux"]
    x_t, cond = rows(family, 2)
    ids = torch.zeros(2, (x_t.shape[-1] // 2) ** 2, 3)
    from studio.models.packing import image_ids

    ids[:] = image_ids(x_t.shape[-2] // 2, x_t.shape[-1] // 2)
    ids[..., 0] = 1
    wanted = asked(family, x_t, cond.with_extra(img_ids=ids))[1]
    found = asked(family, x_t, cond, Coupling(2, coupled=torch.tensor([False]), axis=family.spare_axis))[1]
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_padding_is_seen_by_nobody(families, name):
    family = families[name]
    x_t, cond = rows(family, 3)
    present = torch.tensor([[True, True, False]])
    padded = asked(family, x_t, cond, Coupling(3, present=present))[:2]
    alone = asked(family, x_t[:2], cond.rows(slice(0, 2)), Coupling(2))
    torch.testing.assert_close(padded, alone, atol=1e-5, rtol=1e-4)


def test_a_layer_of_coupling_is_attention_over_the_members_side_by_side(families):
    """Against the sum written out: softmax over all tokens of a set."""
    seen = []

    def keep(query, key, value, *, layer, cross, ordinary, **about):
        found = Coupling(2)(query, key, value, cross=cross, ordinary=ordinary)
        if not cross:
            seen.append((query, key, value, found))
        return found

    x_t, cond = rows(families["sd1"], 4)
    with torch.no_grad(), families["sd1"].attending(keep):
        families["sd1"].predict(x_t, torch.full((4,), 0.5), cond)
    for query, key, value, found in seen:
        q, k, v = (rearrange(x, "(b n) h l d -> b h (n l) d", n=2) for x in (query, key, value))
        weights = (q @ k.mT * q.shape[-1] ** -0.5).softmax(-1)
        torch.testing.assert_close(found, rearrange(weights @ v, "b h (n l) d -> (b n) h l d", n=2))
    assert seen


@pytest.mark.parametrize("name", NAMES)
def test_a_widened_first_layer_starts_at_the_base_model_and_then_moves_it(families, name):
    family = families[name]
    x_t, cond = rows(family, 2)
    layer, more = more_channels(family, x_t.shape[1] + 1), torch.randn(2, x_t.shape[1] + 1, *x_t.shape[2:])
    plain = asked(family, x_t, cond)
    with torch.no_grad(), hinted(family, layer(more)):
        assert torch.equal(asked(family, x_t, cond), plain)
    torch.nn.init.normal_(layer.weight)
    with torch.no_grad(), hinted(family, layer(more)):
        assert not torch.allclose(asked(family, x_t, cond), plain)
    with torch.no_grad(), hinted(family, layer(torch.zeros_like(more))):
        assert torch.equal(asked(family, x_t, cond), plain)
