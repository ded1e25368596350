"""The recipes of classifiers: every cell is a run that can be built, and a stopped one goes on."""

import json
from pathlib import Path

import pytest

from studio.catalog.run import Run
from studio.errors import StudioError
from studio.evidence.classifiers import units
from studio.evidence.classifiers.run import run
from studio.evidence.classifiers.units import Variant
from studio.evidence.reproduce import Reproduce, recipe_of
from tests.trainers.pictures import BACKEND, class_folders

METHODS = ("vit", "vit_nullspace", "arrest", "adversarial")


@pytest.mark.parametrize("method", METHODS)
def test_every_cell_is_a_run_that_can_be_built(method: str, tmp_path: Path) -> None:
    class_folders(tmp_path / "data")
    request = Reproduce(method=method, bench=str(tmp_path / "data"), num_seeds=2)
    found = recipe_of(method).cells(request)
    for cell in found:
        for values in (cell.settings["base"], cell.settings["run"]):
            assert not values or Run.from_dict(json.loads(json.dumps(values))).seed == cell.seed
    assert len({cell.name for cell in found}) == len(found)


def test_data_that_is_not_here_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(units, "EMBEDDED", "not-there")
    with pytest.raises(StudioError, match=r"install dataset-fashion-mnist.*--bench"):
        units.units(str(tmp_path / "none"))


def test_a_cell_measures_before_and_after_and_keeps_the_base_for_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(units, "BASE", {"loop.steps": 3, "loop.batch_size": 8})
    class_folders(tmp_path / "data")
    request = Reproduce(
        method="vit", bench=str(tmp_path / "data"), num_seeds=1, num_units=1, hardware=BACKEND
    )
    variants = {
        "plain": Variant(kind="vit"),
        "none": Variant(kind="vit_nullspace", values={"method.noise": "none"}),
    }
    quick = {"eps": (32.0,), "severities": (2,), "num_images": 4, "alphas": (0.5,), "suite_images": 2}
    found = []
    for cell in units.cells(request, variants, **quick):
        cell.settings["run"]["loop"]["steps"] = 2
        for part in (cell.settings["base"]["method"], cell.settings["run"]["method"], cell.settings["unit"]):
            part["data"].pop("shots")
        found.append(run(cell, tmp_path / "out" / "vit" / cell.name.replace("/", "--")))
    assert set(found[0].measures) == {
        *("clean accuracy", "ece", "corrupted accuracy", "pgd-20 32/255"),
        *("WiSE-FT 0.5, clean", "WiSE-FT 0.5, corrupted, severity 3", "WiSE-FT 0.5, pgd-20 32/255"),
        *("pgd-20 32/255, 2 pictures", "autoattack 32/255, 2 pictures"),
    }
    assert found[0].measures["ece"][0] == found[1].measures["ece"][0]
    assert len(list((tmp_path / "out" / "classifier-bases").iterdir())) == 1


def test_recipes_with_other_measures_share_the_trained_base(tmp_path: Path) -> None:
    class_folders(tmp_path / "data")
    request = Reproduce(method="vit", bench=str(tmp_path / "data"), num_seeds=2, num_units=1)
    bases = [
        json.dumps(cell.settings["base"], sort_keys=True)
        for method in METHODS
        for cell in recipe_of(method).cells(request)
    ]
    assert len(set(bases)) == 2  # one a seed


def test_attack_and_phi_of_a_unit_reach_the_variants_that_take_them(tmp_path: Path) -> None:
    class_folders(tmp_path / "data")
    request = Reproduce(method="vit", bench=str(tmp_path / "data"), num_seeds=1, num_units=1)
    found = {cell.variant: cell.settings["run"]["method"] for cell in recipe_of("vit").cells(request)}
    assert found["data: ARREST"]["replay"]["degrees"] == units.FASHION_PHI
    assert "attack" not in found["data: plain finetuning"]
    assert found["data: PGD-AT"]["attack"] == found["data: ARREST"]["attack"]
