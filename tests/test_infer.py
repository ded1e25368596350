"""Sampling to disk: files, recipes that draw the picture again, stacked artifacts, and clear refusals."""

import dataclasses
import json

import pytest
from PIL import Image

from studio.backend.core import Backend
from studio.errors import StudioError
from studio.models.build import load
from studio.records import recipes
from studio.sampling import infer
from studio.settings import serial
from studio.settings.run import Hardware
from studio.settings.sampling import SampleRequest, Text


@pytest.fixture(scope="module")
def family():
    return load("tiny:sd1", Backend(Hardware(device="cpu", precision="fp32")))


def request(tmp_path, **changes):
    values = {"prompt": ("a dog, red: big", "the cat"), "model": "tiny:sd1", "num_images": 2, "steps": 2,
              "output": str(tmp_path), "negative": "rain", "seed": 7}  # fmt: skip
    return SampleRequest(**{**values, **changes})


def test_pictures_and_a_grid_are_written(family, tmp_path):
    done = infer.run(request(tmp_path), family)
    assert [path.name for path in done.paths] == ["00000-7.png", "00001-8.png", "00002-7.png", "00003-8.png"]
    with Image.open(done.grid) as sheet:
        assert sheet.size == (128, 128)


def test_a_second_call_writes_over_nothing(family, tmp_path):
    first = infer.run(request(tmp_path, num_images=1), family)
    second = infer.run(request(tmp_path, num_images=1), family)
    assert not set(first.paths) & set(second.paths)


def test_the_recipe_in_a_picture_draws_it_again(family, tmp_path):
    done = infer.run(request(tmp_path), family)
    again = recipes.read(done.paths[3])
    assert again.prompt == ("the cat",)
    assert again.seed == 8
    redone = infer.run(dataclasses.replace(again, output=str(tmp_path / "again")), family)
    assert (
        max(abs(a - b) for a, b in zip(redone.images[0].tobytes(), done.images[3].tobytes(), strict=True))
        <= 1
    )


def test_progress_comes_once_a_step_and_can_be_left(family, tmp_path):
    steps = infer.sample(request(tmp_path, num_images=1), family)
    assert next(steps).done == 1
    steps.close()
    assert not list(tmp_path.iterdir())


def test_other_programs_find_their_text_field(family, tmp_path):
    path = infer.run(request(tmp_path, scheduler="dpm++"), family).paths[0]
    with Image.open(path) as picture:
        fields = dict(picture.info)
    assert fields["parameters"].split("\n") == [
        "a dog, red: big",
        "Negative prompt: rain",
        'Steps: 2, Sampler: DPM++ 2M, CFG scale: 4, Seed: 7, Size: 64x64, Model: "tiny:sd1"',
    ]
    assert json.loads(fields["studio"])["fingerprint"] == family.fingerprint()


def test_the_text_of_another_program_becomes_a_request():
    text = (
        "a castle, <lora:old:0.8> dusk\nsecond line\nNegative prompt: people, cars\n"
        'Steps: 25, Sampler: Euler a, CFG scale: 7.5, Seed: 42, Size: 512x768, Model hash: abc, Model: "x, y"'
    )
    found = recipes.from_parameters(text)
    assert found.prompt == ("a castle, dusk\nsecond line",)
    assert found.negative == "people, cars"
    assert (found.steps, found.scheduler, found.guidance, found.seed) == (25, "euler_a", 7.5, 42)
    assert (found.width, found.height, found.model) == (512, 768, "x, y")


def test_a_request_survives_json():
    one = SampleRequest(prompt=("a",), artifact=("x", "y"), strength=(0.5, 1.0), text=Text(clip_skip=1))
    assert serial.from_dict(SampleRequest, json.loads(json.dumps(serial.to_dict(one)))) == one


def test_strengths_are_one_for_all_or_one_each():
    assert SampleRequest(prompt=("a",), artifact=("x", "y"), strength=(0.5,)).strengths() == (0.5, 0.5)
    assert SampleRequest(prompt=("a",), artifact=("x", "y")).strengths() == (1.0, 1.0)
    with pytest.raises(StudioError, match="3 strengths for 2 artifacts"):
        SampleRequest(prompt=("a",), artifact=("x", "y"), strength=(1, 2, 3))


def test_a_request_without_a_prompt_is_refused():
    with pytest.raises(StudioError, match="Prompt 1 of 2 is empty"):
        SampleRequest(prompt=("", "a fox"))
    with pytest.raises(StudioError, match="There is no prompt"):
        SampleRequest(prompt=())


def test_a_picture_without_a_recipe_and_a_text_file_are_refused(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "plain.png")
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(StudioError, match="carries no recipe"):
        recipes.read(tmp_path / "plain.png")
    with pytest.raises(StudioError, match="cannot be read as a picture"):
        recipes.read(tmp_path / "text.png")


def test_an_output_that_is_a_file_is_refused(family, tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(StudioError, match=r"Cannot make the folder .*choose another --output"):
        infer.run(request(tmp_path / "taken", num_images=1), family)


def test_an_edit_that_is_no_edit_is_refused(family, tmp_path):
    with pytest.raises(StudioError, match="Unknown method 'decorr'"):
        infer.run(request(tmp_path, edits=("decorr",)), family)
    with pytest.raises(StudioError, match="trains a model and does not edit"):
        infer.run(request(tmp_path, edits=("vit",)), family)
    with pytest.raises(StudioError, match="not valid JSON"):
        infer.run(request(tmp_path, edits=("{kind: vit}",)), family)
