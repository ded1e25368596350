import pytest

from studio.errors import StudioError
from studio.metrics import table
from studio.metrics.build import Evidence, Jury
from studio.metrics.config import FeatureDiversity, Judges, NoText, OpenClip, Timm
from studio.metrics.statistics import estimate
from studio.metrics.subject import quality, subject_scores
from studio.metrics.table import Row
from tests.metrics.judges import clip_folder, picture, plain, timm_folder

RED = (214, 48, 48)
PROMPTS = ["a sks dog on a red background", "a sks dog on grass"]


@pytest.fixture(scope="module")
def ask(tmp_path_factory):
    folder = tmp_path_factory.mktemp("judges")
    judge = Timm(model=timm_folder(folder / "timm"))
    judges = Judges(
        likeness=judge,
        text=OpenClip(model=clip_folder(folder / "clip")),
        diversity=FeatureDiversity(backbone=judge),
    )
    jury = Jury("cpu")

    def scores(images, prompts=PROMPTS, **evidence):
        return subject_scores(
            images,
            [picture(0)],
            prompts,
            jury=jury,
            judges=judges,
            evidence=Evidence(silent=["sks"], **evidence),
        )

    return scores


def test_the_references_themselves_have_full_likeness(ask):
    assert ask([picture(0)] * 2)["likeness"] == pytest.approx(1, abs=1e-5)


def test_scores_do_not_depend_on_the_order_of_the_prompts(ask):
    images = [picture(i) for i in range(4)]
    assert ask(images) == pytest.approx(ask(images[2:] + images[:2], PROMPTS[::-1]))


def test_background_counts_only_prompts_that_name_a_color(ask):
    scores = ask(
        [plain(RED), picture(1), picture(2), picture(3)], colors={"red": RED, "white": (250, 250, 250)}
    )
    assert scores["background"] in (0.5, 1.0)


def test_targets_add_two_scores(ask):
    scores = ask([picture(1), picture(2)], targets={PROMPTS[0]: picture(1)})
    assert scores["target_likeness"] == pytest.approx(1, abs=1e-5)
    assert scores["pixel_distance"] == 0
    assert "target_likeness" not in ask([picture(1), picture(2)])


def test_diversity_needs_two_pictures_of_a_prompt(ask):
    assert "diversity" not in ask([picture(1), picture(2)])
    assert ask([picture(1)] * 4)["diversity"] == pytest.approx(0, abs=1e-6)


def test_quality_gains_from_likeness_and_from_prompt_fit_alike():
    assert quality({"likeness": 0.4, "prompt_fit": 0.3}) == pytest.approx(
        quality({"likeness": 0.6, "prompt_fit": 0.2})
    )


def test_without_a_judge_of_texts_the_background_stands_for_the_prompt(tmp_path):
    judge = Timm(model=timm_folder(tmp_path / "timm"))
    judges = Judges(likeness=judge, text=NoText(), diversity=FeatureDiversity(backbone=judge))
    scores = subject_scores(
        [plain(RED)],
        [plain(RED)],
        PROMPTS[:1],
        jury=Jury("cpu"),
        judges=judges,
        evidence=Evidence(colors={"red": RED}),
    )
    assert set(scores) == {"likeness", "background", "quality"}
    assert scores["quality"] == pytest.approx(1, abs=1e-5)


def test_pictures_must_divide_among_the_prompts(ask):
    with pytest.raises(StudioError, match="3 pictures cannot belong to 2 prompts"):
        ask([picture(0)] * 3)


def test_a_change_within_two_standard_errors_is_no_verdict():
    noisy, clear = estimate([-0.1, 0.2, 0.1]), estimate([0.1, 0.11, 0.12])
    assert Row("likeness", noisy, noisy, noisy).verdict == "even"
    assert Row("likeness", clear, clear, clear).verdict == "better"
    assert Row("pixel_distance", clear, clear, clear).verdict == "worse"


def test_a_table_survives_json():
    row = Row("likeness", estimate([0.5, 0.7]), estimate([0.2, 0.3]), estimate([0.3, 0.4]), 0.8)
    assert table.from_dict(table.to_dict([row])) == [row]
    assert table.lines([row])[0][1:] == ["0.250 ± 0.050", "0.600 ± 0.100", "+0.350 ± 0.050", "0.800"]
