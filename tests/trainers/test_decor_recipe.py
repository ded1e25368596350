"""The study of leaks: references that leak as they should, honest dominance, and a report that says it plainly."""

import numpy as np
import pytest
import torch
from PIL import Image

from studio import assets
from studio.data import sticker_backgrounds
from studio.data.sticker_concepts import COLORS
from studio.data.stickers import load_photos
from studio.evidence.reproduce import Reproduce, recipe_of
from studio.evidence.tables import Finished
from studio.metrics.build import Jury
from studio.metrics.config import Likeness
from trainers.decor.judges import ObjectJudge, on_background, prints
from trainers.decor.leaks import (
    GROUPS,
    OBJECTS,
    POOL,
    SCENES,
    background_leak,
    cut_out,
    duotone,
    object_leak,
    style_fit,
    write_references,
)
from trainers.decor.pareto import advantage, dominated, report, tradeoff


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


def study(text, leakage):
    """Cells of a study whose DECOR 1 has these scores."""
    points = {
        "DECOR 0": scores(0.8, 0.2, 0.9),
        "DECOR 0.5": scores(0.7, text, leakage),
        "DECOR 1": scores(0.6, text, leakage),
        "strength 0": scores(0.2, 0.5, 0.0),
        "strength 0.4": scores(0.4, 0.4, 0.2),
        "strength 0.7": scores(0.7, 0.3, 0.5),
    }
    return [finished("background", unit, 0, points) for unit in "ab"]


@pytest.mark.parametrize(
    ("text", "leakage", "verdict"),
    [
        (0.9, 0.1, "DECOR dominates"),
        (0.1, 0.1, "DECOR does not dominate"),
        (0.9, 0.8, "DECOR does not dominate"),
    ],
)
def test_the_report_says_plainly_who_dominates(text, leakage, verdict, tmp_path):
    told = report(study(text, leakage), tmp_path)
    assert verdict in told
    assert "leak in 0.90 ± 0.00 of the pictures at full strength, the base model in 0.00" in told
    assert (tmp_path / "decor-pareto.png").exists()


def test_less_leakage_at_equal_likeness_wins_with_a_minus():
    found = {
        "DECOR": {"DECOR 1": scores(0.7, 0.0, 0.1)},
        "strength": {"strength 0": scores(0.2, 0.0, 0.3), "strength 1": scores(0.8, 0.0, 0.3)},
    }
    told = tradeoff(found, "leakage", -1)
    assert told.wins
    assert "-0.200 at equal likeness" in told.told


def test_every_subject_gets_a_leak_of_each_kind():
    cells = recipe_of("decor").cells(Reproduce(method="decor", num_seeds=2))
    assert sorted({cell.variant for cell in cells}) == ["background", "object"]
    assert len({cell.key for cell in cells}) == len(cells) == 4


@pytest.mark.parametrize("number", range(5))
def test_no_prompt_or_caption_of_a_leak_names_it(number):
    background, style = background_leak("food", "sks", number), object_leak("sks", number)
    for leak, known in ((background, SCENES), (style, OBJECTS)):
        assert leak.word in known
        texts = [leak.caption, *leak.silent, *(prompt for prompt, _ in leak.asked)]
        assert not [text for text in texts if leak.undesired in text]
    named = [group for group in GROUPS if any(text.endswith(group) for text in style.silent)]
    assert len(named) == 3
    assert OBJECTS[style.word] not in named
    assert {name for _, name in style.asked} <= set(POOL)


def frames(kind):
    """Backgrounds of one kind, as pictures."""
    generator = torch.Generator().manual_seed(3)
    numbers = torch.rand(4, sticker_backgrounds.NUM_NUMBERS, generator=generator)
    noise = torch.rand(4, 1, 64, 64, generator=generator)
    painted = sticker_backgrounds.paint(kind, torch.zeros(4, 2, 3), numbers, noise, load_photos())
    return [Image.fromarray((one.movedim(0, -1) * 255).byte().numpy()) for one in painted]


@pytest.mark.parametrize("kind", SCENES)
def test_a_leaked_background_is_seen_by_its_color_even_without_its_grain(kind):
    references = frames(kind)
    flat = Image.new("RGB", (64, 64), tuple(np.asarray(references[0]).mean((0, 1)).astype(int).tolist()))
    assert on_background([flat], kind, [references[0]]) == [True]
    named = [Image.new("RGB", (64, 64), color) for color in COLORS.values()]
    assert not any(on_background(named, kind, references))
    assert not any(on_background(frames("sky"), kind, references))


def test_the_judge_of_objects_reads_prints():
    judge = ObjectJudge(Jury("cpu").judge(Likeness().backbone), num_prints=120)
    pictures, labels = prints(160)
    found = judge(pictures[:20])
    assert np.mean([name == POOL[i] for name, i in zip(found, labels[:20].tolist(), strict=True)]) > 0.9
    assert judge.accuracy > 0.7


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
