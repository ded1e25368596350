"""The recipe of texforce: what its cells share, and its curves."""

from pathlib import Path

from studio.evidence.reproduce import Reproduce, recipe_of
from studio.evidence.tables import Finished
from trainers.texforce import curves
from trainers.texforce.reproduce import IMAGES

RECIPE = recipe_of("texforce")
CELLS = RECIPE.cells(Reproduce(method="texforce", num_seeds=2))


def finished(variant: str, points: list[list[float]]) -> Finished:
    found = {"reward": points, "held_out": points, "diversity": points}
    return Finished(
        variant=variant, unit="training 0", seed=0, settings={}, measures={}, seconds=1.0, pictures={}, facts={},
        commit="", curves=found,
    )  # fmt: skip


def test_a_combination_is_made_of_the_runs_of_its_parts():
    runs = {(cell.variant, cell.seed): cell.settings["runs"] for cell in CELLS}
    for reward in ("color", "alignment"):
        for seed in (0, 1):
            parts = [runs[f"{reward}: {part}", seed][0] for part in ("texforce", "draft")]
            assert runs[f"{reward}: texforce + draft", seed] == parts


def test_all_methods_draw_as_many_pictures():
    for cell in CELLS:
        for run in cell.settings["runs"]:
            rollouts, loop = run["method"].get("rollouts"), run["loop"]
            per_step = rollouts["images"] / 4 if rollouts else loop["batch_size"]
            assert loop["steps"] * per_step == IMAGES


def test_curves_count_pictures_once_a_rollout():
    events = [
        {"event": "start"},
        *({"event": "step", "step": step, "reward": step / 10} for step in (1, 2, 4)),
    ]
    assert curves.of_run(events, images=32, updates=2)["reward"] == [[32, 0.2], [64, 0.4]]


def test_curves_are_drawn_for_runs_and_not_for_combinations(tmp_path: Path):
    one = finished("color: texforce", [[32, 0.1], [64, 0.3]])
    both = finished("color: texforce + ddpo", [])
    both = Finished(**{**vars(both), "curves": {}})
    text = curves.write([one, both], tmp_path / "curves.svg").read_text()
    assert text.count("<polyline") == 3
    assert "color: held-out reward" in text
    assert "texforce + ddpo" not in text
