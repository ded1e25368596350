import json
import shutil

import pytest
import torch

from studio.backend.core import Backend
from studio.catalog.families import cards
from studio.data.dreambench import Subject
from studio.errors import StudioError
from studio.evaluation import exam
from studio.evaluation.dreambench import aggregate, draw_missing, score
from studio.evaluation.subject import evaluate, resolved
from studio.metrics.build import Jury
from studio.metrics.config import DreamBenchEval, FeatureDiversity, Judges, OpenClip, SubjectEval, Timm
from studio.models.build import load
from studio.settings.run import Hardware
from tests.metrics.judges import clip_folder, picture, timm_folder

CPU = Hardware(device="cpu")


@pytest.fixture(scope="module")
def judges(tmp_path_factory):
    folder = tmp_path_factory.mktemp("judges")
    judge = Timm(model=timm_folder(folder / "timm"))
    return Judges(
        likeness=judge,
        text=OpenClip(model=clip_folder(folder / "clip")),
        diversity=FeatureDiversity(backbone=judge),
    )


@pytest.fixture(scope="module")
def subject(tmp_path_factory):
    """Two captioned pictures of a subject."""
    folder = tmp_path_factory.mktemp("subject")
    texts = ["a sks owl on a red background", "a sks owl on grass"]
    for i, text in enumerate(texts):
        picture(i).save(folder / f"{i}.png")
        (folder / f"{i}.txt").write_text(text)
    return folder


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """A pipeline whose denoiser differs from the base model's."""
    folder = tmp_path_factory.mktemp("artifact") / "tuned"
    family = load("tiny:sd1", Backend(CPU))
    with torch.no_grad():
        for weights in family.denoiser.parameters():
            weights.mul_(0.9)
    family.pipeline().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def ask(tmp_path_factory, judges, subject, tuned):
    def ask(**values):
        given = {
            "artifact": str(tuned), "data": str(subject), "model": "tiny:sd1", "token": "sks", "num_images": 2, "steps": 2,
            "judges": judges, "hardware": CPU, "output": str(tmp_path_factory.mktemp("eval")),
        }  # fmt: skip
        return SubjectEval(**given | values)

    return ask


@pytest.fixture(scope="module")
def found(ask, tmp_path_factory):
    return evaluate(ask(keep_base=str(tmp_path_factory.getbasetemp() / "base")))


def test_every_score_has_base_trained_and_paired_change(found):
    rows = {row.name: row for row in found.rows}
    assert list(rows) == [
        "likeness", "clip_likeness", "target_likeness", "pixel_distance", "prompt_fit", "background", "diversity",
        "prior_leak", "prior_drift", "prior_fit",
    ]  # fmt: skip
    for name, row in rows.items():
        assert (row.base is None) == (name == "prior_drift")
        if row.base and row.change:
            assert row.change.mean == pytest.approx(row.tuned.mean - row.base.mean)


def test_standard_errors_count_pictures(found):
    rows = {row.name: row for row in found.rows}
    assert rows["likeness"].tuned.n == 4
    assert rows["background"].tuned.n == 2


def test_drift_is_above_zero_when_the_weights_changed(found):
    assert next(row for row in found.rows if row.name == "prior_drift").tuned.mean > 0


def test_scores_and_report_are_written_with_every_picture(found):
    values = json.loads(found.scores.read_text())
    assert values["class_prompts"] == ["an owl on a red background", "an owl on grass"]
    assert len(values["each"]["trained"]["likeness"]) == 4
    assert len(list(found.folder.glob("pictures/*/*/*.png"))) == 16
    report = found.report.read_text()
    assert report.count('alt="Trained: ') == 4
    assert report.count('alt="True picture: ') == 2


def test_steps_and_guidance_that_nobody_gave_are_the_cards(ask):
    asked = ask(steps=0)
    family = load("tiny:flux", Backend(CPU))
    unknown = resolved(asked, family)
    assert (unknown.steps, unknown.guidance) == (20, 4.0)
    family.variant = cards()["flux"].variant("flux-schnell")
    known = resolved(asked, family)
    assert (known.steps, known.guidance) == (4, 1.0)
    given = resolved(ask(steps=7, guidance=0.0), family)
    assert (given.steps, given.guidance) == (7, 0.0)


def test_strength_zero_is_the_base_model(ask, found, tmp_path):
    same = evaluate(ask(strength=0.0, output=str(tmp_path), keep_base=str(found.folder.parent / "base0")))
    rows = {row.name: row for row in same.rows}
    assert rows["prior_drift"].tuned.mean == pytest.approx(0, abs=1e-6)
    assert rows["likeness"].change.mean == pytest.approx(0, abs=1e-6)


def test_kept_base_pictures_give_the_same_scores(ask, found, tmp_path, tmp_path_factory):
    again = evaluate(ask(keep_base=str(tmp_path_factory.getbasetemp() / "base"), output=str(tmp_path)))
    assert [row.name for row in again.rows] == [row.name for row in found.rows]
    for one, two in zip(again.rows, found.rows, strict=True):
        assert (one.base is None) is (two.base is None)
        if one.base is not None and two.base is not None:  # judged in other batches: equal up to rounding
            assert one.base.mean == pytest.approx(two.base.mean, abs=1e-4, nan_ok=True)


def test_prompts_of_a_file_replace_the_captions(subject, tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_text("a {token} {class} in snow\n\na {token} {class} in snow\n")
    asked = exam.read(str(subject), str(file), token="zwx", class_word="owl")
    assert asked.prompts == ("a zwx owl in snow",)
    assert asked.targets == {}
    assert len(asked.references) == 2


def test_prompts_in_json_may_name_their_targets(subject, tmp_path):
    file = tmp_path / "prompts.json"
    file.write_text('["a sks owl", {"prompt": "a sks owl in snow", "target": "1.png"}]')
    asked = exam.read(str(subject), str(file), token="sks", class_word="")
    assert asked.targets == {"a sks owl in snow": subject / "1.png"}
    assert asked.class_prompts == ("an owl", "an owl in snow")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[{"text": "a"}]', "object with 'prompt'"),
        ('[{"prompt": "a", "target": "9.png"}]', "lies neither"),
        ("{", "Cannot read"),
    ],
)
def test_a_wrong_prompts_file_is_told_in_one_sentence(subject, tmp_path, content, message):
    file = tmp_path / "prompts.json"
    file.write_text(content)
    with pytest.raises(StudioError, match=message):
        exam.read(str(subject), str(file), token="sks", class_word="")


def test_pictures_without_captions_need_prompts(subject, tmp_path):
    shutil.copy(subject / "0.png", tmp_path)
    with pytest.raises(StudioError, match="There is nothing to draw"):
        exam.read(str(tmp_path), "", token="sks", class_word="")


def test_a_subject_without_captions_is_drawn_in_a_few_places(subject, tmp_path):
    shutil.copy(subject / "0.png", tmp_path)
    asked = exam.read(
        str(tmp_path), "", token="sks", class_word="owl", phrase="a sticker of a {token} {class}"
    )
    assert asked.prompts[:2] == ("a sticker of a sks owl", "a sticker of a sks owl in the snow")
    assert asked.class_prompts[1] == "a sticker of an owl in the snow"
    assert asked.targets == {}


def test_a_missing_prompts_file_is_said_plainly(subject):
    with pytest.raises(StudioError, match=r"There is no file 'nowhere.txt'; --prompts takes a text file"):
        exam.read(str(subject), "nowhere.txt", token="sks", class_word="owl")


@pytest.mark.parametrize(
    ("prompt", "plain"),
    [
        ("a photo of a sks owl", "a photo of an owl"),
        ("An sks dog on an orange rug", "A dog on an orange rug"),
        ("asks a sks", "asks a"),
    ],
)
def test_the_plain_class_keeps_its_article(prompt, plain):
    assert exam.without_token(prompt, "sks").strip() == plain


# ---------------------------------------------------------------- DreamBench


@pytest.fixture
def toy_bench(tmp_path, judges):
    files = []
    for i in range(3):
        picture(i).save(tmp_path / f"real{i}.png")
        files.append(tmp_path / f"real{i}.png")
    one = Subject(
        name="owl",
        class_name="bird",
        references=tuple(files),
        prompts=("a {token} {class}", "a red {token} {class}"),
    )
    request = DreamBenchEval(
        runs="runs", data="data", output=str(tmp_path / "out"), judges=judges, num_images=2
    )
    return one, request, tmp_path / "out"


def test_dreambench_draws_only_what_is_missing(toy_bench):
    subject, request, folder = toy_bench
    asked = []

    def drawer(prompts):
        asked.extend(prompts)
        return [picture(5), picture(6)]

    draw_missing(folder, subject, request, drawer)
    (folder / "owl" / "1" / "1.png").unlink()
    draw_missing(folder, subject, request, drawer)
    assert asked == ["a sks bird", "a red sks bird", "a bird", "a red sks bird"]


def test_dreambench_scores_each_prompt(toy_bench, judges):
    subject, request, folder = toy_bench
    draw_missing(folder, subject, request, lambda _: [picture(0), picture(0)])
    scores = score(folder, subject, request, Jury("cpu"))
    assert {name: len(values) for name, values in scores.items()} == {
        "likeness": 2, "clip_likeness": 2, "prompt_fit": 2, "diversity": 2, "prior_leak": 1,
    }  # fmt: skip
    assert scores["diversity"] == pytest.approx([0, 0], abs=1e-6)


def test_dreambench_means_do_not_depend_on_the_order():
    first = {"a": {"likeness": [0.1, 0.3]}, "b": {"likeness": [0.7]}}
    second = {"b": {"likeness": [0.7]}, "a": {"likeness": [0.3, 0.1]}}
    assert aggregate(first, {}) == aggregate(second, {})
    assert aggregate(first, {})[0].tuned.mean == pytest.approx(0.45)
