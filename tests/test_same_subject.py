"""Making same-subject sets: panels, subjects, filters with reasons, new backgrounds, a folder that trains."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image, ImageDraw

from studio.contracts.sampling import Request
from studio.data.folder_sets import FolderSets
from studio.data.set_config import SetFolder
from studio.errors import StudioError
from studio.metrics.config import Judges, NoText
from studio.same_subject import pipeline
from studio.same_subject.background import repainted
from studio.same_subject.collages import crop, panels, subject_of
from studio.same_subject.config import MakeSets


def disk(color, at=(32, 32), radius=16, side=64, behind="white"):
    picture = Image.new("RGB", (side, side), behind)
    x, y = at
    ImageDraw.Draw(picture).ellipse((x - radius, y - radius, x + radius, y + radius), fill=color)
    return picture


def collage(*parts, columns=2, shift=0):
    """Panels side by side; `shift` moves the inner borders."""
    side, rows = 64, len(parts) // columns
    whole = Image.new("RGB", (side * columns, side * rows), "white")
    for index, part in enumerate(parts):
        row, column = divmod(index, columns)
        whole.paste(part, (column * side + (shift if column else 0), row * side))
    return whole


def test_panels_follow_a_clear_border_near_the_grid():
    whole = collage(disk("red"), disk("red", behind="teal"), shift=3)
    left, right = panels(whole, 1, 2)
    assert (left.width, right.width) == (67, 61)
    assert np.asarray(right)[0, 0].tolist() == list(Image.new("RGB", (1, 1), "teal").getpixel((0, 0)))


def test_a_subject_is_what_differs_from_the_rim():
    mask = subject_of(disk("red"), threshold=45)
    assert abs(mask.mean() - np.pi * 16**2 / 64**2) < 0.03
    assert not subject_of(Image.new("RGB", (64, 64), "teal"), threshold=45).any()


def test_a_crop_is_a_square_around_the_subject():
    panel = disk("red", at=(12, 32), radius=10)
    found = crop(panel, subject_of(panel, threshold=45), 32, margin=0.2)
    assert found.picture.size == found.mask.size == (32, 32)
    assert abs((np.asarray(found.mask) > 127).mean() - np.pi / 4 / 1.4**2) < 0.05


@pytest.fixture(scope="module")
def workshop():
    settings = MakeSets(
        subjects=("ball",), model="tiny:sd1", side=64, steps=1, judges=Judges(text=NoText()), scenes=(),
        min_likeness=0.2, max_likeness=0.9999,
    )  # fmt: skip
    return pipeline.Workshop(settings)


def made(workshop, whole, monkeypatch, **changes):
    workshop.settings = dataclasses.replace(workshop.settings, **changes)
    monkeypatch.setattr(workshop, "collage", lambda subject, seed: whole)
    return workshop.make(0, "ball", 0)


def test_what_is_left_out_is_said_with_numbers(workshop, monkeypatch):
    parts = disk("red"), disk("red", at=(30, 34), radius=18), disk("red"), disk("red", radius=5)
    found = made(workshop, collage(*parts), monkeypatch)
    assert len(found.crops) == 2
    assert any(r.startswith("panel 3: the subject covers 0.02, min_area is 0.1") for r in found.reasons)
    assert any("a near duplicate of another at 1.00" in reason for reason in found.reasons)
    assert found.captions == ["a photo of a ball"] * 2


def test_a_set_of_unlike_members_is_rejected_whole(workshop, monkeypatch):
    parts = (
        disk("red"),
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)),
    )
    found = made(workshop, collage(*parts), monkeypatch, rows=1, max_area=1.0, min_likeness=0.9)
    assert not found.crops
    assert "fewer than two members are left" in found.reasons


def test_a_new_background_leaves_the_subject_alone(workshop):
    picture = disk("red")
    mask = Image.fromarray(subject_of(picture, threshold=45).astype(np.uint8) * 255)
    drawn = repainted(
        workshop.family, picture, mask, Request(prompts=["a ball on grass"], steps=2, guidance=2.0)
    )
    new, old = np.asarray(drawn), np.asarray(picture)
    assert np.array_equal(new[28:36, 28:36], old[28:36, 28:36])
    assert not np.array_equal(new[:4, :4], old[:4, :4])


def test_the_folder_trains_and_goes_on_where_it_stopped(tmp_path, monkeypatch):
    parts = disk("red"), disk("red", at=(30, 34), radius=20), disk("red", radius=12), disk("red", radius=14)
    monkeypatch.setattr(pipeline.Workshop, "collage", lambda self, subject, seed: collage(*parts))
    settings = MakeSets(
        subjects=("ball",), model="tiny:sd1", side=64, steps=1, collages=1, output=str(tmp_path / "sets"),
        min_likeness=-1, min_fit=-1, max_likeness=0.99999,
    )  # fmt: skip
    events = [*pipeline.make(settings), *pipeline.make(dataclasses.replace(settings, scenes=()))]
    assert [event["event"] for event in events] == ["set", "done"] * 2
    lines = [json.loads(line) for line in (tmp_path / "sets" / "sets.jsonl").read_text().splitlines()]
    assert [line["set_id"] for line in lines] == ["set-00000", "set-00001"]
    assert lines[0]["images"][0]["caption"] == "a photo of a ball on green grass"
    assert set(lines[0]) == {"set_id", "class_name", "images", "source", "filter_scores"}
    source = FolderSets(SetFolder(folder=str(tmp_path / "sets")), (2,), side=64)
    assert len(source) == 2


def test_settings_that_keep_nothing_are_refused(tmp_path):
    with pytest.raises(StudioError, match="otherwise nothing is kept"):
        MakeSets(subjects=("a",), min_likeness=0.9, max_likeness=0.5)
    with pytest.raises(StudioError, match="A collage of one panel"):
        MakeSets(subjects=("a",), rows=1, columns=1)
    with pytest.raises(StudioError, match="Cannot read the subjects"):
        next(pipeline.make(MakeSets(subjects=(f"@{tmp_path}/none.txt",), output=str(tmp_path))))
