"""FLUX.1 Kontext and Fill look at pictures as their pipelines do; Chroma hides padding, recomputed or not."""

from dataclasses import replace

import pytest
import torch
from diffusers.pipelines.flux import pipeline_flux_kontext
from PIL import Image

from studio.backend.core import Backend
from studio.contracts.sampling import PlainEdit, Request
from studio.errors import StudioError
from studio.models.build import load
from studio.models.draw import conditions, drawing, start_noise
from studio.models.families.chroma.model import one_more
from studio.models.families.flux_kontext import model
from studio.models.families.flux_kontext.model import preferred
from studio.sampling import reference_check
from studio.settings.run import Hardware
from studio.settings.sampling import SampleRequest
from studio.weights.made_for import families_of
from tests.models.asking import SIZE, asked, pipeline_of

REQUEST = Request(prompts=["a dog", "the cat"], steps=2, guidance=3.5, seed=5, height=SIZE, width=SIZE)


def picture(width=80, height=64):
    noise = torch.rand(height, width, 3, generator=torch.Generator().manual_seed(1))
    return Image.fromarray((noise * 255).byte().numpy())


def mask():
    whole = Image.new("L", (80, 64))
    whole.paste(255, (20, 10, 60, 50))
    return whole


def both(family, references, given):
    """Our pictures and the pipeline's, in [0, 1]."""
    request = replace(REQUEST, references=references)
    latents, _ = start_noise(family, [5, 5], SIZE, SIZE)
    pipeline = pipeline_of(family)
    pipeline.set_progress_bar_config(disable=True)
    theirs = pipeline(**asked(family, request, latents) | given).images
    *_, last = drawing(family, request)
    return last.clean_images() / 2 + 0.5, theirs


def test_kontext_looks_at_a_picture_as_its_pipeline_does(families, monkeypatch):
    for place in (pipeline_flux_kontext, model):
        monkeypatch.setattr(place, "PREFERRED_KONTEXT_RESOLUTIONS", [(64, 96), (96, 128)])
    ours, theirs = both(families["flux-kontext"], [picture()], {"image": picture()})
    assert (ours - theirs).abs().max() <= 1e-4
    alone, _ = both(families["flux-kontext"], [], {})
    assert not torch.allclose(ours, alone, atol=1e-4)


def test_fill_paints_the_masked_part_as_its_pipeline_does(families):
    given = {"image": picture(), "mask_image": mask()}
    ours, theirs = both(families["flux-fill"], [picture(), mask()], given)
    assert (ours - theirs).abs().max() <= 1e-4
    alone, _ = both(families["flux-fill"], [], {})
    assert not torch.allclose(ours, alone, atol=1e-4)


def test_a_picture_comes_to_the_nearest_size_of_the_training():
    assert preferred(100, 100) == (1024, 1024)
    assert preferred(300, 200) == (1248, 832)


@pytest.mark.parametrize(("name", "count"), [("flux-kontext", 2), ("flux-fill", 1)])
def test_another_number_of_references_is_refused(families, name, count):
    with pytest.raises(StudioError, match=f"{count} reference pictures were given, and FLUX.1 .* looks at"):
        families[name].embed_with(["a dog"], [picture()] * count, SIZE, SIZE)


def test_references_are_refused_before_loading_unless_the_model_looks(tmp_path):
    request = SampleRequest(prompt=("a dog",), reference=("a.png",), output=str(tmp_path))
    reference_check.check(replace(request, model="flux-kontext"))
    reference_check.check(replace(request, model="tiny:flux-fill"))
    with pytest.raises(StudioError, match="looks at reference pictures"):
        reference_check.check(replace(request, model="tiny:flux"))


def test_chroma_reads_words_and_one_token_of_padding():
    words = torch.tensor([[True, True, False, False], [True, True, True, True]])
    assert one_more(words).tolist() == [[True, True, True, False], [True, True, True, True]]


def test_chroma_ignores_padding_beyond_the_first_token(families):
    family = families["chroma"]
    cond = family.embed(["a dog"])
    seen = int(cond.extra["mask"].sum())
    changed = cond.tokens.clone()
    changed[:, seen:] += 1
    latents, _ = start_noise(family, [0], SIZE, SIZE)
    with torch.no_grad():
        plain, other = (
            family.predict(latents, torch.tensor([0.5]), replace(cond, tokens=tokens))
            for tokens in (cond.tokens, changed)
        )
        changed[:, seen - 1] += 1
        third = family.predict(latents, torch.tensor([0.5]), replace(cond, tokens=changed))
    assert torch.equal(plain, other)
    assert not torch.allclose(plain, third, atol=1e-6)


def test_recomputed_blocks_of_chroma_keep_the_mask(families):
    """diffusers calls its single blocks without one there: the loss would be another."""
    saving = load(
        "tiny:chroma", Backend(Hardware(device="cpu", precision="fp32", gradient_checkpointing=True))
    )
    latents, _ = start_noise(saving, [0], SIZE, SIZE)
    found = []
    for family in (families["chroma"], saving):
        latents = latents.detach().requires_grad_()
        family.denoiser.train()
        said = family.predict(latents, torch.tensor([0.5]), family.embed(["a dog"]))
        said.square().sum().backward()
        found.append((said.detach(), latents.grad))
        family.denoiser.eval()
    torch.testing.assert_close(*found)


def test_a_lora_of_flux_fits_its_relatives():
    assert {"flux", "flux-kontext", "flux-fill"} <= set(
        families_of({}, {"modelspec.architecture": "flux-1-dev/lora"})
    )
    assert "chroma" in families_of(
        {"lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight": torch.ones(1)}, {}
    )
    assert "flux" not in families_of({}, {"modelspec.architecture": "chroma/lora"})


class Looking(PlainEdit):
    """An edit that the references are for."""

    takes_references = True


def test_references_of_an_artifact_are_not_the_familys(families):
    """Kontext would see a picture that an adapter looks at, and Fill lack its mask."""
    request = replace(REQUEST, references=[picture()], edits=[Looking()])
    for name in ("flux-kontext", "flux-fill"):
        cond, _ = conditions(families[name], request, request.prompts)
        assert "reference" not in cond.extra
