"""The robustness evaluation: its arithmetic, its honesty, its files; and the nullspace analysis."""

import json
from pathlib import Path

import pytest
from torch import Tensor, nn

from studio.attacks.config import Attacks
from studio.attacks.constants import BENCHMARK, EXTRA
from studio.catalog.run import Run
from studio.data.config import Labelled
from studio.errors import StudioError
from studio.evaluation.nullspace import analyze
from studio.evaluation.robustness import Found, evaluate
from studio.metrics import robustness as metrics
from studio.models.vit import Classifier
from studio.settings.run import Loop, Optim
from studio.training.train import run_to_end
from studio.vision.config import Nullspace, Robustness
from studio.vision.line import load_before
from studio.vision.robustness import Examined, attacked, masking_evidence
from tests.classifiers import CLASSES, pictures, trained
from tests.trainers.pictures import BACKEND, class_folders, short_run, trained_folder
from trainers.vit.config import Vit


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("robustness")


@pytest.fixture(scope="module")
def data(root: Path) -> Labelled:
    train = class_folders(root / "pictures")
    return Labelled(train=train.train, test=train.train, augment="none")


@pytest.fixture(scope="module")
def found(root: Path, data: Labelled) -> Found:
    partly = root / "shift"
    class_folders(root / "whole", 24)
    (partly / "x").parent.mkdir()
    for name in CLASSES[1:]:
        (root / "whole" / name).rename(partly / name)
    request = Robustness(
        model=trained_folder(root),
        data=data,
        num_images=16,
        attacks=Attacks(names=("fgsm", "pgd", "autoattack-mini"), eps=(2.0, 6.0), steps=5, queries=20),
        severities=(2, 4),
        checks=False,
        shifts=(str(partly),),
        before="tiny:vit",
        alphas=(0.0, 1.0),
        output=str(root / "out"),
        hardware=BACKEND,
    )
    return evaluate(request)


def test_the_report_has_every_part(found: Found) -> None:
    assert set(found.corruptions) == {*BENCHMARK, *EXTRA}
    assert all(len(values) == 2 for values in found.corruptions.values())
    assert set(found.attacks) == {"fgsm", "pgd", "autoattack-mini"}
    values = json.loads(found.scores.read_text())
    assert values["numbers"] == found.numbers
    assert len(values["facts"]["weights"]) == 16
    text = found.report.read_text()
    assert all(
        part in text for part in ("Corruptions", "Attacks", "What fools it", "WiSE-FT", "data:image/png")
    )


def test_accuracy_falls_from_clean_to_fgsm_to_all_attacks(found: Found) -> None:
    numbers = found.numbers
    assert numbers["clean accuracy"] >= numbers["fgsm 6/255"] >= numbers["all attacks 6/255"]
    assert numbers["all attacks 2/255"] >= numbers["all attacks 6/255"]
    assert numbers["all attacks 6/255"] <= min(numbers["pgd-5 6/255"], numbers["autoattack-mini 6/255"])


def test_mce_is_not_claimed_without_alexnet(found: Found) -> None:
    assert "mCE percent" not in found.numbers
    assert "mean corruption error percent" in found.numbers


def test_the_shifted_data_may_have_a_part_of_the_classes(found: Found) -> None:
    assert next(iter(found.shifts.values())) > 0.5


def test_the_end_of_the_line_is_the_evaluated_model(found: Found) -> None:
    assert found.line[-1]["clean"] == found.numbers["clean accuracy"]
    assert found.line[-1]["pgd-5 6/255"] == found.numbers["pgd-5 6/255"]


def test_examples_are_pictures_that_were_told_right(found: Found) -> None:
    assert found.examples
    assert all(example.label != example.answer for example in found.examples)


class Rounded(nn.Module):
    """A model that sees pictures in steps: its gradient is zero, though attacks that ask no gradient still work."""

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model((images * 32).round() / 32)


def test_a_model_with_rounded_inputs_is_flagged() -> None:
    images, labels = pictures(16, 90)
    settings = Attacks(steps=5, eps=(8.0,), queries=100)
    few = Examined(images, labels, 64)
    signs = metrics.masking_signs(masking_evidence(Rounded(trained()), few, settings, 0, 8.0))
    assert any("radius that hides every picture" in sign for sign in signs)
    assert any("black-box attack" in sign for sign in signs)


def test_an_honest_model_is_not_flagged() -> None:
    images, labels = pictures(16, 90)
    settings = Attacks(steps=10, eps=(4.0,), queries=40)
    assert (
        metrics.masking_signs(masking_evidence(trained(), Examined(images, labels, 64), settings, 0, 4.0))
        == []
    )


def test_an_attack_that_leaves_its_ball_stops_the_evaluation() -> None:
    from studio.attacks.build import Attacker

    class Cheat(Attacker):
        def __call__(self, name: str, images: Tensor, labels: Tensor, eps: float, first: int = 0) -> Tensor:
            return (images + 0.5).clamp(0, 1)

    images, labels = pictures(8, 90)
    with pytest.raises(RuntimeError, match="left its ball"):
        attacked(Cheat(trained(), Attacks(), 0), trained(), Examined(images, labels, 8), "pgd", 4.0)


def test_data_with_other_classes_is_refused(root: Path, data: Labelled, tmp_path: Path) -> None:
    class_folders(tmp_path / "other", 24)
    (tmp_path / "other" / "spots").rename(tmp_path / "other" / "dots")
    other = Labelled(train=str(tmp_path / "other"))
    with pytest.raises(StudioError, match=r"Class 0 is 'plaid' in .* but 'dots' in the data"):
        evaluate(Robustness(model=trained_folder(root), data=other, output=str(tmp_path), hardware=BACKEND))


def test_a_shift_with_an_unknown_class_is_refused(root: Path, data: Labelled, tmp_path: Path) -> None:
    class_folders(tmp_path / "other", 24)
    (tmp_path / "other" / "spots").rename(tmp_path / "other" / "dots")
    request = Robustness(
        model=trained_folder(root), data=data, corruptions="none", attacks=Attacks(names=()),
        shifts=(str(tmp_path / "other"),), output=str(tmp_path), hardware=BACKEND,
    )  # fmt: skip
    with pytest.raises(StudioError, match=r"Class 'dots' .* is none of the model's 4 classes"):
        evaluate(request)


def test_the_transfer_attack_needs_a_surrogate(root: Path, data: Labelled) -> None:
    request = Robustness(
        model=trained_folder(root), data=data, attacks=Attacks(names=("transfer",)), hardware=BACKEND
    )
    with pytest.raises(StudioError, match=r"give --attacks.surrogate"):
        evaluate(request)


def test_the_nullspace_analysis_shows_pictures_that_the_model_cannot_tell_apart(
    root: Path, data: Labelled, tmp_path: Path
) -> None:
    request = Nullspace(
        model=trained_folder(root),
        before="tiny:vit",
        data=data,
        num_images=2,
        output=str(tmp_path),
        hardware=BACKEND,
    )
    found = analyze(request)
    changes = found.values["changes"]
    assert found.values["nullity"] == 144
    assert changes["in the nullspace"]["logits"] < 1e-4
    assert (
        changes["in the nullspace, saved with 8 bits"]["embedding"] > changes["in the nullspace"]["embedding"]
    )
    assert changes["random, of equal length"]["embedding"] > 1e-2
    assert 0.5 < next(iter(found.values["overlap"].values())) < 1
    assert all(file.exists() for row in found.pictures for file in row.values())
    assert "invisible to the model" in found.report.read_text()


def test_the_nullspace_of_a_run_is_followed_from_its_start_over_its_checkpoints(
    root: Path, data: Labelled, tmp_path: Path
) -> None:
    method = Vit(model=trained_folder(root), data=data)
    loop = Loop(steps=6, batch_size=16, checkpoint_every=2, keep_checkpoints=3)
    run = Run(
        method=method, output=str(tmp_path), name="run", loop=loop, optim=Optim(lr=1e-2), hardware=BACKEND
    )
    folder = run_to_end(run).path
    found = analyze(Nullspace(model=str(folder), data=data, num_images=1, hardware=BACKEND))
    overlaps = list(found.values["overlap"].values())
    assert list(found.values["overlap"]) == ["the start of the run", "step 2", "step 4", "step 6"]
    assert overlaps == sorted(overlaps)
    assert overlaps[-1] == pytest.approx(1)
    assert "How it moved while training" in found.report.read_text()


def test_a_stronger_attack_that_does_less_harm_is_a_sign() -> None:
    assert metrics.order_signs({"fgsm": 0.5, "pgd": 0.5, "autoattack": 0.41}, 10) == []
    (sign,) = metrics.order_signs({"pgd": 0.2, "autoattack": 0.5}, 10)
    assert sign == "autoattack (50.0%) does less harm than pgd (20.0%)"


def test_the_patch_has_no_radius_and_is_measured_once(root: Path, data: Labelled, tmp_path: Path) -> None:
    asked = Robustness(
        model=trained_folder(root),
        data=data,
        num_images=4,
        attacks=Attacks(names=("patch", "fgsm"), eps=(1.0, 2.0), steps=1),
        corruptions="none",
        checks=False,
        output=str(tmp_path),
        hardware=BACKEND,
    )
    found = evaluate(asked)
    assert list(found.attacks["patch"]) == ["any"]
    assert "patch, 12.5% of the side" in found.numbers
    assert "<td>-</td>" in found.report.read_text()


def test_a_run_gets_its_line_of_weights_by_itself(root: Path, data: Labelled, tmp_path: Path) -> None:
    start = trained_folder(root)
    folder = run_to_end(short_run(Vit(model=start, data=data), tmp_path, "run", steps=1)).path
    asked = Robustness(
        model=str(folder),
        data=data,
        num_images=4,
        attacks=Attacks(names=("fgsm",), steps=1),
        corruptions="none",
        alphas=(0.0, 1.0),
        checks=False,
        hardware=BACKEND,
    )
    found = evaluate(asked)
    assert [point["alpha"] for point in found.line] == [0.0, 1.0]
    assert found.line[1]["clean"] == found.numbers["clean accuracy"]
    assert "WiSE-FT" in found.report.read_text()
    assert load_before("auto", "tiny:vit", ()) is None


def test_a_run_whose_start_is_gone_is_warned_about(
    data: Labelled, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    start = trained_folder(tmp_path)
    folder = run_to_end(short_run(Vit(model=start, data=data), tmp_path, "run", steps=1)).path
    Path(start, "model.safetensors").unlink()
    assert load_before("auto", str(folder), ()) is None
    assert "nothing is compared with the net before finetuning" in caplog.text
