"""The recipes of classifiers: every cell is a run that can be built, and a stopped one goes on."""

import json
from pathlib import Path

import pytest

from studio import classifier_recipe, runs
from studio.classifier_recipe import Examination, Variant, cells, run
from studio.errors import StudioError
from studio.reproduce import Reproduce, recipe_of
from tests.trainers.pictures import BACKEND, class_folders

METHODS = ("vit", "vit_nullspace", "arrest", "adversarial")


@pytest.mark.parametrize("method", METHODS)
def test_every_cell_is_a_run_that_can_be_built(method: str, tmp_path: Path) -> None:
    class_folders(tmp_path / "data")
    request = Reproduce(method=method, bench=str(tmp_path / "data"), num_seeds=2)
    found = recipe_of(method).cells(request)
    for cell in found:
        for values in (cell.settings["base"], cell.settings["run"]):
            assert not values or runs.build(json.loads(json.dumps(values))).seed == cell.seed
    assert len({cell.name for cell in found}) == len(found)


def test_data_that_is_not_here_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classifier_recipe, "EMBEDDED", "not-there")
    with pytest.raises(StudioError, match=r"install dataset-fashion-mnist.*--bench"):
        classifier_recipe.units(str(tmp_path / "none"))


def test_a_cell_measures_before_and_after_and_keeps_the_base_for_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(classifier_recipe, "BASE", {"loop.steps": 3, "loop.batch_size": 8})
    monkeypatch.setattr(classifier_recipe, "TUNE", {"loop.steps": 2, "loop.batch_size": 8})
    class_folders(tmp_path / "data")
    shown = Examination(eps=(2.0,), attacks=("pgd",), severities=(2,), num_images=4)
    request = Reproduce(
        method="vit", bench=str(tmp_path / "data"), num_seeds=1, num_units=1, hardware=BACKEND
    )
    variants = {
        "plain": Variant(kind="vit"),
        "none": Variant(kind="vit_nullspace", values={"method.noise": "none"}),
    }
    found = []
    for cell in cells(request, variants, shown):
        cell.settings["base"]["method"]["data"].pop("shots")
        cell.settings["run"]["method"]["data"].pop("shots")
        cell.settings["unit"]["data"].pop("shots")
        found.append(run(cell, tmp_path / "out" / cell.variant))
    assert set(found[0].measures) == {
        "clean accuracy",
        "ece",
        "pgd-20 2/255",
        "all attacks 2/255",
        "corrupted accuracy",
    }
    assert found[0].measures["ece"][0] == found[1].measures["ece"][0]
    assert len(list((tmp_path / "out").glob("base-*"))) == 1
