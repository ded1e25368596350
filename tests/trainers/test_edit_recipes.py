"""Recipes of style injection and OFT: the cells that the question names, and measures that measure it."""

import pytest
from PIL import Image

from studio import assets
from studio.evidence.reproduce import Reproduce, recipe_of
from trainers.style_injection.measures import color_distance, structure
from trainers.style_injection.reproduce import CONTENTS, WAYS


def half(left, right):
    picture = Image.new("RGB", (64, 64), left)
    picture.paste(right, (32, 0, 64, 64))
    return picture


def test_structure_is_kept_by_other_colors_and_lost_by_another_picture():
    given = half("black", "white")
    assert structure(half("navy", "yellow"), given) == pytest.approx(1, abs=1e-3)
    assert structure(half("black", "white").rotate(90), given) < 0.5
    assert structure(Image.new("RGB", (64, 64)), given) == 0


def test_color_distance_reads_colors_wherever_they_are():
    assert color_distance(half("red", "blue"), half("blue", "red")) == pytest.approx(0, abs=1e-6)
    assert color_distance(half("red", "blue"), half("green", "green")) > 0.1


def test_every_content_is_drawn_in_every_way():
    cells = recipe_of("style_injection").cells(Reproduce(method="style_injection", num_seeds=1))
    assert len(cells) == len(CONTENTS) * len(WAYS)


@pytest.mark.skipif(not assets.exists("models/studio-tiny"), reason="the embedded model is absent")
def test_orthogonal_adapters_meet_their_rivals_on_every_subject_and_longer_on_one():
    cells = recipe_of("oft").cells(Reproduce(method="oft", num_seeds=2))
    assert len({cell.key for cell in cells}) == len(cells) == 2 * 6 + 2 * 3
    longest = [c for c in cells if c.variant == "oft x10"]
    assert len(longest) == 1
    assert longest[0].settings["run"]["loop"]["steps"] == 10 * cells[0].settings["run"]["loop"]["steps"]
