"""The attention hook: same result when it does nothing, right shapes and names, and no trace afterwards."""

from dataclasses import replace

import pytest
import torch
from peft import LoraConfig
from peft.tuners.lora import LoraLayer

from studio.backend.core import Backend
from studio.catalog import families as catalog
from studio.contracts.sampling import PlainEdit, Request
from studio.models.build import load
from studio.models.draw import draw
from studio.models.entry import entry
from studio.settings.run import Hardware


def predict(family, b=2):
    latents = torch.randn(b, *family.latent_shape(64, 64), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return family.predict(latents, torch.full((b,), 0.4), family.embed(["a dog", "a cat"][:b]))


def identity(query, key, value, *, layer, cross, scale, ordinary):
    del layer, cross, scale
    return ordinary(query, key, value)


def processors(family):
    return {name: m.processor for name, m in family.denoiser.named_modules() if "processor" in vars(m)}


def test_doing_nothing_gives_the_same_bits(family):
    plain = predict(family)
    with family.attending(identity):
        hooked = predict(family)
    assert torch.equal(plain, hooked)


def test_processors_are_the_same_objects_afterwards_even_after_an_error(family):
    before = processors(family)
    assert before
    with pytest.raises(RuntimeError, match="on purpose"), family.attending(identity):
        raise RuntimeError("on purpose")
    after = processors(family)
    assert before.keys() == after.keys()
    assert all(before[name] is after[name] for name in before)


def test_the_function_sees_every_attention_layer_once(family):
    seen = []

    def watch(query, key, value, *, layer, cross, scale, ordinary):
        seen.append((layer, cross, query.shape, key.shape, scale, ordinary.text))
        return ordinary(query, key, value)

    with family.attending(watch):
        predict(family)
    layers = family.card.layers
    looked_at = [name for name in processors(family) if not any(part in name for part in layers.text_only)]
    assert sorted(one[0] for one in seen) == sorted(looked_at)
    for _, _, query, key, scale, _ in seen:
        assert len(query) == 4
        assert query[0] == 2
        assert query[1] == key[1]
        assert scale == pytest.approx(query[3] ** -0.5)


def test_cross_attention_of_a_u_net_is_told_from_self_attention(families):
    crosses = {}

    def watch(query, key, value, *, layer, cross, scale, ordinary):
        del scale
        crosses[layer] = (cross, key.shape[2])
        return ordinary(query, key, value)

    with families["sdxl"].attending(watch):
        predict(families["sdxl"])
    for layer, (cross, length) in crosses.items():
        assert cross == layer.endswith("attn2")
        assert (length == 77) == cross


@pytest.mark.parametrize(
    "name", [name for name, card in catalog.cards().items() if card.layers.text != "none"]
)
def test_joint_attention_says_where_the_text_lies(families, name):
    """SD3 and Z-Image put it after the picture, FLUX before; layers over the picture alone have none."""
    family, layers = families[name], catalog.cards()[name].layers
    calls = []

    def watch(query, key, value, *, layer, cross, scale, ordinary):
        del cross, scale
        calls[-1].append((layer, ordinary.text, value))
        return ordinary(query, key, value)

    latents = torch.randn(1, *family.latent_shape(64, 64), generator=torch.Generator().manual_seed(0))
    cond = family.embed(["a dog"])
    for moved in (cond, replace(cond, tokens=cond.tokens + 1)):
        calls.append([])
        with torch.no_grad(), family.attending(watch):
            family.predict(latents, torch.full((1,), 0.4), moved)
    joint = [call for call in calls[0] if call[1].stop]
    layer, span, value = joint[0]
    other = next(found for name, _, found in calls[1] if name == layer)
    rows = (value != other).any(-1).any(1)[0].nonzero()[:, 0].tolist()
    assert rows == list(range(span.start, span.stop)), (
        "in the first layer, what moves with the text is the text"
    )
    assert {str(found) for _, found, _ in joint} == {str(span)}
    assert (span.start == 0) == (layers.text == "first")
    alone = {layer for layer, found, _ in calls[0] if not found.stop}
    image_only = {call[0] for call in calls[0] if any(part in f".{call[0]}." for part in layers.image_only)}
    assert alone == image_only


def test_replacing_attention_changes_the_prediction(family):
    plain = predict(family)
    with family.attending(lambda query, key, value, **_: torch.zeros_like(query)):
        assert not torch.allclose(plain, predict(family))


def test_two_hooks_compose_the_one_opened_first_is_called_first(families):
    order = []

    def noting(name):
        def note(query, key, value, *, layer, cross, scale, ordinary):
            del layer, cross, scale
            order.append(name)
            return ordinary(query, key, value)

        return note

    family = families["sd1"]
    plain = predict(family)
    with family.attending(noting("first")), family.attending(noting("second")):
        assert torch.equal(predict(family), plain)
    assert order[:2] == ["first", "second"]
    assert order.count("first") == order.count("second")


def test_the_hook_works_with_lora_layers_inside(backend):
    family = load("tiny:sd1", backend)
    family.denoiser.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False))
    assert any(isinstance(module, LoraLayer) for module in family.denoiser.modules())
    plain = predict(family)
    with family.attending(identity):
        assert torch.equal(predict(family), plain)


@pytest.mark.parametrize(
    "name", ["sd1", *(n for n, c in catalog.cards().items() if c.denoiser == "transformer")]
)
def test_recomputed_activations_use_the_hook_of_the_forward_pass(name):
    plain = load(f"tiny:{name}", Backend(Hardware(device="cpu", precision="fp32")))
    checkpointing = Hardware(device="cpu", precision="fp32", gradient_checkpointing=True)
    saving = load(f"tiny:{name}", Backend(checkpointing))
    assert grown(plain).abs().sum() > 0
    torch.testing.assert_close(grown(saving), grown(plain))


def grown(family):
    """Gradient of an early weight, with the hook closed before the backward pass."""
    family.denoiser.requires_grad_(True).train()
    weight = next(entry(family.denoiser).parameters())
    weight.grad = None
    latents = torch.randn(1, *family.latent_shape(64, 64), generator=torch.Generator().manual_seed(0))
    with family.attending(lambda query, key, value, *, ordinary, **_: ordinary(query, key * 0.5, value)):
        prediction = family.predict(latents, torch.full((1,), 0.4), family.embed(["a dog"]))
    prediction.square().mean().backward()
    return weight.grad.clone()


class Louder(PlainEdit):
    """An edit that scales the text, moves the start and sharpens one kind of layer."""

    def condition(self, cond):
        return type(cond)(cond.tokens * 1.5, cond.pooled, cond.extra)

    def start(self, latents, rng):
        return latents + 0.1 * rng.normal(*latents.shape)

    def attention(self, layer):
        if not layer.endswith("attn1"):
            return None
        return lambda query, key, value, *, scale, ordinary, **_: ordinary(query, key, value, scale=2 * scale)


class Still(PlainEdit):
    """An edit that changes nothing."""

    def condition(self, cond):
        return cond

    def start(self, latents, rng):
        del rng
        return latents

    def attention(self, layer):
        del layer


def test_edits_change_a_picture_and_the_identity_does_not(families):
    family = families["sd1"]
    plain, still, louder = (
        draw(family, Request(prompts=["a dog"], steps=2, edits=edits))[0]
        for edits in ([], [Still()], [Louder()])
    )
    assert plain == still
    assert plain != louder


def test_random_edits_do_not_depend_on_how_many_pictures_are_drawn_at_once(families):
    request = Request(prompts=["a dog"], num_images=3, steps=2, edits=[Louder()])
    together, alone = draw(families["sd1"], request, most=3), draw(families["sd1"], request, most=1)
    for one, other in zip(together, alone, strict=True):
        assert max(abs(a - b) for a, b in zip(one.tobytes(), other.tobytes(), strict=True)) <= 1
