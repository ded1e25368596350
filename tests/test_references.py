"""References: from files of any kind to the artifact that looks at them, and into the recipe."""

import dataclasses
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from studio.backend.core import Backend
from studio.contracts.sampling import Edit, PlainEdit, Request
from studio.errors import StudioError
from studio.models.build import load
from studio.models.draw import draw
from studio.records import recipes, trained
from studio.same_subject import references
from studio.sampling import infer, reference_check
from studio.settings.run import Hardware
from studio.settings.sampling import SampleRequest
from studio.weights import artifacts

HARDWARE = Hardware(device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def family():
    return load("tiny:sd1", Backend(HARDWARE))


@pytest.fixture
def folder(tmp_path):
    """What a method that looks at references wrote."""
    trained.write(tmp_path / "looker", method="tests.looker", model="tiny:sd1", settings={"a": 1})
    return tmp_path / "looker"


@pytest.fixture
def pictures(tmp_path):
    """A transparent, a gray, a 16-bit and a large picture, of four sizes."""
    noise = np.random.default_rng(0).integers(0, 255, (40, 60, 4), dtype=np.uint8)
    made = {
        "clear.png": Image.fromarray(noise, "RGBA"),
        "gray.png": Image.fromarray(noise[:, :, 0]),
        "deep.png": Image.fromarray(noise[:, :, 0].astype(np.uint16) * 257),
        "large.jpg": Image.new("RGB", (5000, 3000), "teal"),
    }
    for name, picture in made.items():
        picture.save(tmp_path / name)
    return tuple(str(tmp_path / name) for name in made)


def asked(tmp_path, **changes):
    values = {"prompt": ("a dog",), "model": "tiny:sd1", "steps": 2, "output": str(tmp_path / "out"),
              "hardware": HARDWARE}  # fmt: skip
    return SampleRequest(**{**values, **changes})


def test_pictures_of_every_kind_and_size_become_one_size(pictures):
    seen = references.tensors(reference_check.read(pictures), 32, 64)
    assert seen.shape == (4, 3, 32, 64)
    assert seen.min() >= -1
    assert seen.max() <= 1


def test_an_artifact_says_which_guidance_suits_it_unless_the_request_does(tmp_path):
    for name, guidance in (("plain", None), ("soft", 1.5)):
        trained.write(
            tmp_path / name, method="tests.looker", model="tiny:sd1", settings={}, guidance=guidance
        )
    plain, soft = str(tmp_path / "plain"), str(tmp_path / "soft")

    assert infer.resolved(asked(tmp_path, artifact=(plain,)), None).guidance == Request.guidance
    assert infer.resolved(asked(tmp_path, artifact=(plain, soft)), None).guidance == 1.5
    assert infer.resolved(asked(tmp_path, artifact=(soft,), guidance=3.0), None).guidance == 3.0


def test_transparency_is_white(tmp_path):
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    assert torch.equal(
        references.tensors(reference_check.read([str(tmp_path / "clear.png")]), 8, 8), torch.ones(1, 3, 8, 8)
    )


def test_a_reference_that_is_no_picture_is_refused_by_name(tmp_path):
    (tmp_path / "song.png").write_text("la")
    with pytest.raises(StudioError, match=r"reference '.*song.png'.* give another picture"):
        reference_check.read([str(tmp_path / "song.png")])


def test_references_reach_the_artifact_and_the_recipe(folder, pictures, tmp_path):
    request = asked(tmp_path, artifact=(str(folder),), reference=pictures, strength=(0.5,))
    done = infer.run(request)
    assert recipes.read(done.paths[0]).reference == pictures
    again = infer.run(recipes.read(done.paths[0]))
    assert again.images[0].tobytes() == done.images[0].tobytes()
    other = infer.run(dataclasses.replace(request, reference=pictures[-1:]))
    assert other.images[0].tobytes() != done.images[0].tobytes()


def test_no_reference_is_refused_before_a_model_is_loaded(folder, tmp_path):
    with pytest.raises(StudioError, match=r"no reference picture, and .* draws what references show"):
        infer.run(asked(tmp_path, artifact=(str(folder),), model="no-such-model"))


def test_no_reference_is_refused_in_python_too(folder, family):
    loaded = artifacts.load(folder, family)
    with pytest.raises(StudioError, match="no reference picture"):
        draw(family, Request(prompts=["a dog"], steps=1, edits=[loaded.edit]))


def test_references_that_nothing_looks_at_are_refused(pictures, tmp_path):
    with pytest.raises(StudioError, match="looks at reference pictures"):
        infer.run(asked(tmp_path, reference=pictures, model="no-such-model"))


def test_a_folder_of_a_method_is_found_by_path_run_and_name(folder, family, tmp_path, monkeypatch):
    shutil.copytree(folder, tmp_path / "run" / "export")
    shutil.copytree(folder, tmp_path / "assets" / "models" / "looker-tiny")
    monkeypatch.setattr(trained.assets, "root", lambda: tmp_path / "assets")
    for given in (folder, tmp_path / "run", "looker-tiny"):
        loaded = artifacts.load(given, family, 0.5)
        assert isinstance(loaded.edit, Edit)
        assert loaded.edit.strength == 0.5
    assert infer.model_of(["looker-tiny"]) == "tiny:sd1"
    with pytest.raises(StudioError, match=r"embedded artifact \(looker-tiny\)"):
        artifacts.load("loker-tiny", family)


def test_a_damaged_card_is_said(folder):
    (folder / trained.CARD).write_text('{"method": "tests.looker"}')
    with pytest.raises(StudioError, match=r"method\.json is damaged"):
        trained.find(folder)


def test_an_edit_that_leaves_the_prediction_as_it_is_changes_no_bit(family):
    plain, with_edit = (
        draw(family, Request(prompts=["a dog"], steps=2, edits=edits))[0].tobytes()
        for edits in ([], [PlainEdit()])
    )
    assert plain == with_edit


def test_of_several_predictions_the_first_is_taken(folder, family, pictures):
    first, second = (artifacts.load(folder, family).edit for _ in range(2))
    seen = reference_check.read(pictures[:1])
    draw(family, Request(prompts=["a dog"], steps=2, edits=[PlainEdit(), first, second], references=seen))
    assert (first.calls, second.calls) == (2, 0)
