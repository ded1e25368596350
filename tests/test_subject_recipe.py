import pytest

from studio import assets
from studio.reproduce import Reproduce, recipe_of
from studio.subject_recipe import Trial, spread, trials, weights_of


def _named(*names):
    return [Trial(name=n, class_word="", data=assets.root(), exam=assets.root(), prompts=()) for n in names]


def test_without_a_benchmark_the_sample_subject_is_taken():
    (one,) = trials("")
    assert (one.name, one.class_word) == ("unicorn", "animal")
    assert one.data != one.exam


def test_some_subjects_are_taken_evenly_over_all_kinds():
    assert [t.name for t in spread(_named("a", "b", "c", "d", "e", "f"), 3)] == ["a", "c", "e"]
    assert len(spread(_named("a", "b"), 0)) == 2
    assert len(spread(_named("a", "b"), 9)) == 2


def test_the_recipe_of_dreambooth_pairs_lora_and_full_on_every_subject_and_seed():
    cells = recipe_of("dreambooth").cells(Reproduce(method="dreambooth", num_seeds=2))
    assert [cell.name for cell in cells] == [
        "lora/unicorn/seed-0",
        "full/unicorn/seed-0",
        "lora/unicorn/seed-1",
        "full/unicorn/seed-1",
    ]
    kinds = [cell.settings["run"]["method"]["adapter"]["kind"] for cell in cells]
    assert kinds == ["lora", "full"] * 2
    assert [cell.settings["run"]["seed"] for cell in cells] == [0, 0, 1, 1]
    assert len({cell.key for cell in cells}) == 4


@pytest.mark.skipif(not assets.exists("models/studio-tiny"), reason="the embedded model is absent")
def test_a_cell_knows_the_weights_it_starts_from():
    cell = recipe_of("dreambooth").cells(Reproduce(method="dreambooth"))[0]
    assert cell.settings["weights"] == weights_of("studio-tiny") != ""
    assert weights_of("someone/else") == ""
