"""Style injection: inversion comes back, statistics move, queries stay, and only the chosen layers look at the style."""

import pytest
import torch
from PIL import Image

from studio.backend.core import Backend
from studio.backend.rng import Rng
from studio.contracts.sampling import Request
from studio.errors import StudioError
from studio.models.attention import Ordinary
from studio.models.build import load
from studio.models.companion import Features, image_layers, invert, last
from studio.models.draw import draw
from studio.settings.run import Hardware
from trainers.style_injection.config import StyleInjection
from trainers.style_injection.edit import StyleInjectionEdit, adain

STEPS = 3


@pytest.fixture(scope="module")
def family():
    return load("tiny:sd2", Backend(Hardware(device="cpu", precision="fp32")))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for index, name in enumerate(("content", "style")):
        values = torch.rand(64, 64, 3, generator=torch.Generator().manual_seed(index)) * (0.5 + index / 2)
        Image.fromarray((values * 255).byte().numpy()).save(folder / f"{name}.png")
    return {name: str(folder / f"{name}.png") for name in ("content", "style")}


def picture(family, edits, **values):
    request = Request(**{"prompts": ["a dog"], "steps": STEPS, "guidance": 1.0, "edits": edits, **values})
    return draw(family, request, Rng.single(0, 0, 1))[0]


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# ---- inversion


@pytest.mark.parametrize(("name", "scheduler"), [("sd2", "ddim"), ("sd3", "flow-euler")])
def test_drawing_from_inverted_latents_gives_the_picture_back(name, scheduler):
    model = load(f"tiny:{name}", Backend(Hardware(device="cpu", precision="fp32")))
    latents = noise(2, *model.latent_shape(64, 64)) / 2
    with torch.no_grad():
        cond = model.embed(["", ""])
        sampler = model.scheduler(scheduler, STEPS)
        x = invert(model, latents, cond, sampler, refine=30)[0]
        for timestep in sampler.timesteps:
            t = (timestep.float() / 1000).expand(2)
            x = sampler.step(model.predict(x, t, cond), timestep, x).prev_sample
    torch.testing.assert_close(x, latents, atol=2e-2, rtol=0)


def test_refinement_brings_inversion_closer(family):
    latents = noise(1, *family.latent_shape(64, 64))
    with torch.no_grad():
        cond = family.embed([""])
        exact, plain, refined = (
            invert(family, latents, cond, family.scheduler("ddim", STEPS), refine=n)[0] for n in (12, 0, 3)
        )
    assert (refined - exact).norm() < (plain - exact).norm()


def test_a_sampler_that_cannot_run_backwards_is_refused(family, pictures):
    with pytest.raises(StudioError, match="cannot be run backwards"):
        picture(family, [StyleInjectionEdit(StyleInjection(**pictures), family)], scheduler="euler_a")


# ---- the first latents


def test_latents_take_the_statistics_of_the_style_picture_by_picture():
    content, style = (
        noise(3, 4, 8, 8),
        noise(3, 4, 8, 8, seed=1) * torch.tensor([1.0, 2.0, 5.0])[:, None, None, None],
    )
    found = adain(content, style)
    torch.testing.assert_close(found.mean((2, 3)), style.mean((2, 3)), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found.std((2, 3)), style.std((2, 3)), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found[1:2], adain(content[1:2], style[1:2]))


def test_a_picture_in_its_own_style_stays_and_a_flat_channel_is_no_problem():
    content = noise(1, 4, 8, 8)
    torch.testing.assert_close(adain(content, content), content, atol=1e-4, rtol=1e-4)
    flat = adain(torch.zeros(1, 4, 8, 8), content)
    assert flat.isfinite().all()


# ---- attention


def attend(family, pictures, seen, query, **settings):
    edit = StyleInjectionEdit(StyleInjection(**pictures, **settings), family)
    edit._seen = {"layer": seen}
    given = {}

    class Watching(Ordinary):
        def __call__(self, query, key, value, **options):
            given.update(query=query, key=key, value=value, **options)
            return super().__call__(query, key, value, **options)

    out = edit._attend(
        query, query, query, layer="layer", scale=0.5, ordinary=Watching(None, slice(0, 0)), cross=False
    )
    return out, given


def test_full_preservation_takes_the_contents_queries_and_none_the_own(family, pictures):
    seen = Features(*(noise(2, 2, 5, 4, seed=i) for i in range(3)))
    query = noise(3, 2, 5, 4, seed=9)
    _, kept = attend(family, pictures, seen, query, preserve=1.0)
    _, own = attend(family, pictures, seen, query, preserve=0.0)
    assert torch.equal(kept["query"], seen.query[:1].expand_as(query))
    assert torch.equal(own["query"], query)
    assert torch.equal(own["key"], seen.key[1:].expand_as(query))


def test_temperature_one_is_attention_with_exchanged_keys_and_values_and_more_is_sharper(family, pictures):
    seen = Features(*(noise(2, 2, 5, 4, seed=i) for i in range(3)))
    query = noise(1, 2, 5, 4, seed=9)
    out, _ = attend(family, pictures, seen, query, preserve=0.0, temperature=1.0)
    key, value = seen.key[1:], seen.value[1:]
    torch.testing.assert_close(out, (query @ key.mT * 0.5).softmax(-1) @ value)

    def entropy(temperature):
        _, given = attend(family, pictures, seen, query, preserve=0.0, temperature=temperature)
        weights = (given["query"] @ given["key"].mT * given["scale"]).softmax(-1)
        return -(weights * weights.log()).sum(-1).mean()

    assert entropy(3.0) < entropy(1.5) < entropy(1.0)


def test_only_the_last_layers_are_asked(family, pictures):
    with torch.no_grad():
        layers = image_layers(family, noise(1, *family.latent_shape(64, 64)), family.embed([""]))
    assert all(name.endswith("attn1") for name in layers)
    edit = StyleInjectionEdit(StyleInjection(**pictures, share=0.375), family)
    picture(family, [edit])
    asked = [name for name in layers if edit.attention(name) is not None]
    assert asked == last(layers, 0.375)
    assert 0 < len(asked) < len(layers)
    assert all(name.startswith("up_blocks") for name in asked)


# ---- pictures


def test_a_picture_in_its_own_style_is_its_reconstruction(family, pictures):
    same = {"content": pictures["content"], "style": pictures["content"], "preserve": 1.0, "temperature": 1.0}
    made = [
        picture(family, [StyleInjectionEdit(StyleInjection(**same, share=share, refine=30), family)])
        for share in (0.0, 1.0)
    ]
    away = [abs(a - b) for a, b in zip(made[0].tobytes(), made[1].tobytes(), strict=True)]
    assert max(away) <= 1


@pytest.mark.parametrize(
    ("name", "scheduler"),
    [
        ("sdxl", "ddim"),
        ("sd3", "flow-euler"),
        ("flux", "flow-euler"),
        ("z-image", "flow-euler"),
        ("flux2-klein", "flow-euler"),
    ],
)
def test_the_style_changes_the_picture_in_every_kind_of_model(name, scheduler, pictures):
    model = load(f"tiny:{name}", Backend(Hardware(device="cpu", precision="fp32")))
    plain, styled = (
        picture(
            model,
            [StyleInjectionEdit(StyleInjection(**pictures, begin="content", share=share), model)],
            scheduler=scheduler, steps=2,
        )
        for share in (0.0, 0.5)
    )  # fmt: skip
    assert plain.tobytes() != styled.tobytes()


def test_guidance_is_refused(family, pictures):
    with pytest.raises(StudioError, match="without guidance"):
        picture(family, [StyleInjectionEdit(StyleInjection(**pictures), family)], guidance=4.0)


def test_a_missing_picture_is_named(family):
    with pytest.raises(StudioError, match=r"Cannot use the content picture 'none\.png': it does not exist"):
        StyleInjectionEdit(StyleInjection(content="none.png", style="none.png"), family)


def test_other_settings_of_the_same_pictures_need_no_new_inversion(family, pictures):
    made = StyleInjectionEdit(StyleInjection(**pictures), family)
    picture(family, [made])
    other = StyleInjection(**pictures, preserve=0.3)
    again, anew = made.again(other), StyleInjectionEdit(other, family)
    inverted = again._inverted
    assert picture(family, [again]).tobytes() == picture(family, [anew]).tobytes()
    assert again._inverted is inverted
