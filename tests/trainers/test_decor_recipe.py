"""The study of leaks: references that leak as they should, honest dominance, and a report that says it plainly."""

import numpy as np
import pytest
from PIL import Image

from studio import assets
from studio.evidence import Finished
from studio.reproduce import Reproduce, recipe_of
from trainers.decor.leaks import background_leak, cut_out, duotone, object_leak, style_fit, write_references
from trainers.decor.pareto import advantage, dominated, report


def finished(variant, unit, seed, scores):
    measures = {f"{p}: {k}": [None, v] for p, values in scores.items() for k, v in values.items()}
    return Finished(variant=variant, unit=unit, seed=seed, settings={}, measures=measures, seconds=1.0, pictures={},
                    facts={}, commit="")  # fmt: skip


def scores(likeness, text, leakage=0.5):
    return {"likeness": likeness, "text similarity": text, "leakage": leakage}


def test_a_point_is_dominated_only_by_one_that_is_nowhere_worse_and_somewhere_better():
    assert dominated((1, 1), [(1, 2)])
    assert not dominated((1, 1), [(1, 1)])
    assert not dominated((1, 1), [(2, 0.9)])


def test_the_advantage_is_the_height_above_the_rival_at_equal_likeness():
    assert advantage([(0.5, 3.0)], [(0.0, 1.0), (1.0, 2.0)]) == pytest.approx(1.5)
    assert advantage([(5.0, 3.0)], [(0.0, 1.0), (1.0, 2.0)]) is None


@pytest.mark.parametrize(("text", "verdict"), [(0.9, "DECOR dominates"), (0.1, "DECOR does not dominate")])
def test_the_report_says_plainly_who_dominates(text, verdict, tmp_path):
    points = {
        "DECOR 0": scores(0.8, 0.2),
        "DECOR 1": scores(0.6, text, 0.1),
        "strength 0.4": scores(0.4, 0.4, 0.2),
    }
    cells = [finished("background", unit, 0, points) for unit in "ab"]
    told = report(cells, tmp_path)
    assert verdict in told
    assert (tmp_path / "decor-pareto.png").exists()


def test_every_subject_gets_a_leak_of_each_kind():
    cells = recipe_of("decor").cells(Reproduce(method="decor", num_seeds=2))
    assert sorted({cell.variant for cell in cells}) == ["background", "object"]
    assert len({cell.key for cell in cells}) == len(cells) == 4


@pytest.mark.skipif(not assets.exists("samples/unicorn"), reason="the sample subject is absent")
def test_references_share_one_background_and_show_the_subject(tmp_path):
    leak = background_leak("animal", "sks", 0)
    subject = assets.path("samples/unicorn/0.png")
    write_references(leak, tmp_path, {"subject": str(subject), "seed": 0})
    assert len(list(tmp_path.glob("*.png"))) == 5
    assert (tmp_path / "0.txt").read_text() == "a sticker of a sks animal"
    with Image.open(tmp_path / "0.png") as picture:
        red, green, blue = np.asarray(picture)[:4, :4].reshape(-1, 3).mean(0)
    assert green > max(red, blue)
    inside = np.asarray(cut_out(subject).getchannel("A")) > 0
    assert 0.2 < inside.mean() < 0.98


def test_styled_references_are_in_their_style(tmp_path):
    leak = object_leak("sks", 1)
    write_references(leak, tmp_path, {"style": 1, "seed": 0})
    with Image.open(tmp_path / "0.png") as picture:
        assert style_fit(picture, 1) > 0.98
        assert style_fit(picture, 2) < 0.95
        assert style_fit(duotone(picture, 2), 2) > 0.98
    assert all(leak.word not in prompt for prompt, _ in leak.asked)
