"""FLUX.2: its autoencoder's patches, pictures that it looks at by itself, and distilled weights, against diffusers' pipelines."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from studio.catalog.traits import variant_of
from studio.contracts.sampling import PlainEdit, Request
from studio.errors import StudioError
from studio.models.build import load
from studio.models.draw import draw, drawing, start_noise
from studio.sampling.infer import resolved, run
from studio.settings.run import Hardware
from studio.settings.sampling import SampleRequest
from tests.models.asking import SIZE, asked

FAMILIES = ("flux2-klein", "flux2")


@pytest.fixture(params=FAMILIES)
def family(request, families):
    return families[request.param]


def picture(width, height, seed):
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(noise)


def quiet(family):
    pipeline = family.pipeline()
    pipeline.scheduler = type(pipeline.scheduler).from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def far(family, request, **more):
    """How far our picture is from the pipeline's."""
    latents, _ = start_noise(family, [request.seed] * len(request.prompts), SIZE, SIZE)
    theirs = quiet(family)(**asked(family, request, latents), **more).images
    *_, last = drawing(family, request)
    return (last.clean_images() / 2 + 0.5 - theirs).abs().max()


def test_latents_are_the_pipelines(family):
    images = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.no_grad():
        ours, theirs = family.encode(images), family.pipeline()._encode_vae_image(images, None)
    assert ours.shape == (2, *family.latent_shape(64, 96)) == (2, 128, 4, 6)
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)


def test_the_spread_of_a_latent_is_that_of_its_samples(family):
    """Mean and deviation of many samples, normalized as the pipeline normalizes one."""
    images = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.no_grad():
        found = family.moments(images)
        mean, std = found.mean, found.std
        own = family.vae.encode(images).latent_dist
        pipeline, bn = family.pipeline(), family.vae.bn
        drawn = own.mean + own.std * torch.randn(
            4000, *own.mean.shape[1:], generator=torch.Generator().manual_seed(2)
        )
        scale = (bn.running_var + family.vae.config.batch_norm_eps).sqrt()[None, :, None, None]
        samples = (pipeline._patchify_latents(drawn) - bn.running_mean[None, :, None, None]) / scale
    torch.testing.assert_close(samples.std(0), std[0], rtol=0.1, atol=1e-3)
    assert ((samples.mean(0) - mean[0]).abs() < 0.1 * std[0] + 1e-3).all()


def test_drawing_beside_references_equals_the_pipeline(family):
    references = [picture(64, 80, 0), picture(97, 66, 1)]
    request = Request(
        prompts=["a dog", "the cat"], references=references, steps=2, guidance=3.0, height=SIZE, width=SIZE
    )
    assert far(family, request, image=references) <= 1e-4
    *_, plain = drawing(family, Request(prompts=["a dog"], steps=2, guidance=3.0, height=SIZE, width=SIZE))
    *_, beside = drawing(family, request)
    assert (plain.clean_images() - beside.clean_images()[:1]).abs().max() > 1e-3


def test_more_references_than_it_looks_at_are_refused(family):
    most = family.card.references
    request = Request(prompts=["a dog"], references=[picture(64, 64, 0)] * (most + 1), steps=1)
    with pytest.raises(
        StudioError, match=f"{most + 1} reference pictures were given, and .* looks at {most} at most"
    ):
        draw(family, request)


def test_a_reference_that_is_too_small_is_refused(family):
    with pytest.raises(StudioError, match=r"Image too small: 32.64.*give another one"):
        draw(family, Request(prompts=["a dog"], references=[picture(32, 64, 0)], steps=1))


def test_distilled_weights_draw_in_one_pass_and_stay_distilled_when_saved(families, backend, tmp_path):
    parts = families["flux2-klein"].pipeline()
    parts.register_to_config(is_distilled=True)
    parts.save_pretrained(tmp_path)
    family = load(str(tmp_path), backend)
    assert family.pipeline().config.is_distilled
    assert family.passes(4.0) == 1
    request = Request(prompts=["a dog"], steps=2, guidance=4.0, height=SIZE, width=SIZE)
    assert far(family, request) <= 1e-4
    with pytest.raises(StudioError, match="reads no negative prompt"):
        draw(family, Request(prompts=["a dog"], negative="sky", steps=1))


def test_a_request_with_references_needs_no_artifact(tmp_path):
    picture(64, 64, 0).save(tmp_path / "0.png")
    request = SampleRequest(
        prompt=("a dog",),
        model="tiny:flux2-klein",
        reference=(str(tmp_path / "0.png"),),
        steps=1,
        output=str(tmp_path / "out"),
        hardware=Hardware(device="cpu"),
    )
    assert run(request).images[0].size == (64, 64)
    with pytest.raises(
        StudioError, match=r"Neither the model nor an artifact .* looks at reference.*FLUX\.2 klein"
    ):
        run(replace(request, model="tiny:sd1"))


def test_an_edit_that_takes_references_has_them_alone(families):
    family, seen = families["flux2-klein"], []

    class Taking(PlainEdit):
        takes_references = True

        def condition(self, cond):
            seen.append("reference" in cond.extra)
            return cond

    class Other(Taking):
        takes_references = False

    for edit in (Taking(), Other()):
        draw(family, Request(prompts=["a dog"], references=[picture(64, 64, 0)], steps=1, edits=[edit]))
    assert seen == [False, True]


def test_guidance_is_the_published_models_where_nothing_else_says_it():
    asked, klein = SampleRequest(prompt=("a dog",)), variant_of("klein-4b")
    assert resolved(asked, klein).guidance == 1.0
    assert resolved(asked, variant_of("z-image")).guidance == 5.0
    assert resolved(asked, variant_of("tiny:sd1")).guidance == 4.0
    assert resolved(replace(asked, guidance=2.0), klein).guidance == 2.0
