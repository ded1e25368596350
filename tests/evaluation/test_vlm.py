"""The evaluation of dual encoders: its arithmetic, its table, what it compares with."""

import json
from pathlib import Path

import pytest
import torch

from studio.data.config import Labelled
from studio.data.pools import split
from studio.errors import StudioError
from studio.evaluation.vlm import evaluate
from studio.matching.config import Coop, VlmEval, Whole
from studio.matching.examined import prepare
from studio.matching.files import Described, save_matcher
from studio.matching.measure import fit_head
from studio.metrics.matching import harmonic, recall, swapped
from studio.models.clip import load_clip
from studio.vision.interpolate import put_between
from tests.matching.test_matchers import tuned
from tests.trainers.pictures import class_folders

SMALL = {"num_pairs": 6, "num_swaps": 4, "templates": ("{a name}",)}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Labelled:
    return class_folders(tmp_path_factory.mktemp("pictures"), 48)


def test_the_harmonic_mean_of_nothing_is_nothing() -> None:
    assert harmonic(0.0, 0.0) == 0.0
    assert harmonic(0.5, 0.5) == 0.5


def test_recall_counts_every_match_of_a_row() -> None:
    scores = torch.tensor([[3.0, 2.0, 1.0], [1.0, 3.0, 2.0]])
    matches = torch.tensor([[False, True, False], [True, False, True]])
    assert recall(scores, matches, (1, 2, 3)) == {1: 0.0, 2: 1.0, 3: 1.0}


def test_swapped_attributes_are_right_where_the_diagonal_wins() -> None:
    right = torch.eye(2)[None]
    assert swapped(right) == {"text": 1.0, "picture": 1.0, "group": 1.0}
    assert swapped(1 - right) == {"text": 0.0, "picture": 0.0, "group": 0.0}
    one_sided = torch.tensor([[[3.0, 2.0], [4.0, 5.0]]])  # every picture is right, one caption is not
    assert swapped(one_sided) == {"text": 1.0, "picture": 0.0, "group": 0.0}


def test_a_head_learns_what_the_names_did_not_say() -> None:
    features = torch.nn.functional.normalize(torch.randn(12, 4, generator=torch.Generator().manual_seed(0)))
    labels = features[:, :3].argmax(1)
    start = torch.zeros(3, 4)
    head = fit_head(features, labels, start, torch.tensor(20.0))
    assert float(((features @ head.T).argmax(1) == labels).float().mean()) > 0.8


def test_the_ends_of_the_line_are_both_models_to_the_bit() -> None:
    before, after = (load_clip("studio-tiny-clip").requires_grad_(False) for _ in range(2))
    for value in after.network.parameters():
        value.add_(0.1)
    first, last = ({k: v.clone() for k, v in m.network.state_dict().items()} for m in (before, after))
    for alpha, wanted in ((0.0, first), (1.0, last)):
        put_between(after.network, first, last, alpha)
        assert all(torch.equal(value, wanted[key]) for key, value in after.network.state_dict().items())


def test_a_run_is_compared_with_what_it_started_from(data: Labelled, tmp_path: Path) -> None:
    made = tuned(Whole(), "studio-tiny-clip")
    described = Described(base="studio-tiny-clip", tuning=Whole(), classes=("a", "b"), templates=("{name}",))
    save_matcher(made.matcher, described, tmp_path / "run" / "export")
    request = VlmEval(model=str(tmp_path / "run"), data=data, alphas=(0.0, 1.0), shots=(2,), **SMALL)
    found = evaluate(request)
    assert found.after == found.before  # nothing moved
    assert set(found.after) > {"accuracy", "ECE", "base", "new", "HM", "text R@1", "picture R@10"}
    assert "linear head, 2 shots" in found.after
    assert [point["alpha"] for point in found.line] == [0.0, 1.0]
    assert found.line[0]["base"] == found.before["base"]
    assert "Vision-language report" in found.report.read_text()
    assert json.loads(found.scores.read_text())["after"] == found.after


def test_what_a_prompt_cannot_be_asked_is_left_out(data: Labelled, tmp_path: Path) -> None:
    tuning = Coop(per_class=True)
    described = Described(base="studio-tiny-clip", tuning=tuning, classes=("cat", "dog", "fox"))
    save_matcher(tuned(tuning, "studio-tiny-clip").matcher, described, tmp_path / "run" / "export")
    found = evaluate(VlmEval(model=str(tmp_path / "run"), data=data, **SMALL))
    assert "new" not in found.after
    assert "new" in found.before
    assert found.line == []


def test_a_sample_without_some_classes_is_asked_among_all_names(data: Labelled, tmp_path: Path) -> None:
    few = SMALL | {"num_images": 1}
    request = VlmEval(data=data, output=str(tmp_path / "out"), **few)
    whole = split(data).test
    found = prepare(request, tuned(Whole(), "studio-tiny-clip").matcher.model).held_out
    assert found.classes == tuple(whole.classes)
    assert len(found.labels) == 1
    assert len({"base", "new"} & set(evaluate(request).after)) == 1


def test_a_shift_with_other_classes_is_refused(data: Labelled, tmp_path: Path) -> None:
    other = class_folders(tmp_path / "other", 16)
    (tmp_path / "other" / "waves").rename(tmp_path / "other" / "rings")
    with pytest.raises(StudioError, match="'rings', which the data lacks"):
        evaluate(VlmEval(data=data, shifts=(other.train,), output=str(tmp_path / "out"), **SMALL))
