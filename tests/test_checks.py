"""What settings rule out together is said before anything is loaded."""

import re
from pathlib import Path

import pytest

from studio.adapters.config import Boft, Export, Full, Lora
from studio.catalog.checks import check
from studio.catalog.run import Run
from studio.errors import StudioError
from trainers.dreambooth.config import DreamBooth


@pytest.mark.parametrize(
    ("adapter", "given", "said"),
    [
        (Full(), "peft", "peft format cannot hold what --adapter full trains; .* among: merged"),
        (Boft(), "kohya", "kohya format cannot hold what --adapter boft trains; .* among: peft, merged"),
        (
            Lora(dora=True),
            "comfy",
            "comfy format cannot hold what DoRA trains; .* among: diffusers, peft, merged",
        ),
    ],
)
def test_a_format_that_cannot_hold_the_adapter_is_refused_before_training(
    adapter, given, said, tmp_path: Path
):
    method = DreamBooth(data=str(tmp_path), adapter=adapter, export=Export(formats=("merged", given)))
    with pytest.raises(StudioError, match=said):
        check(Run(method=method))


def sizes(model: str, **given: dict[str, int]) -> tuple[int, int]:
    """Batch and parts of a run of DRaFT: of sd15 a batch of 16 in 4 parts, of the embedded model 16 in 1."""
    run = Run.of("draft", prompts=("a castle",), model=model, **given)
    check(run)
    return run.loop.batch_size, run.loop.accumulate


def test_parts_and_batch_follow_the_one_that_was_given():
    assert sizes("sd15") == (16, 4)
    assert sizes("sd15", loop={"batch_size": 5}) == (5, 5)
    assert sizes("sd15", loop={"batch_size": 30}) == (30, 5)
    assert sizes("studio-tiny", loop={"accumulate": 5}) == (15, 5)
    assert sizes("sd15", hardware={"num_processes": 3}) == (15, 5)
    assert sizes("sd15", hardware={"num_processes": 3}, loop={"accumulate": 5}) == (15, 5)


@pytest.mark.parametrize(("batch", "parts", "processes"), [(16, 3, 1), (4, 3, 2), (1, 2, 1), (7, 1, 2)])
def test_a_batch_and_parts_that_do_not_go_together_are_refused_with_two_that_do(
    batch: int, parts: int, processes: int
):
    given = {"loop": {"batch_size": batch, "accumulate": parts}, "hardware": {"num_processes": processes}}
    with pytest.raises(StudioError, match=f"loop.batch_size {batch} cannot be split over") as error:
        sizes("sd15", **given)
    told = re.search(r"choose loop.batch_size (\d+) with loop.accumulate (\d+)", str(error.value))
    assert told is not None
    better = {"batch_size": int(told[1]), "accumulate": int(told[2])}
    assert sizes("sd15", loop=better, hardware=given["hardware"]) == tuple(better.values())


@pytest.mark.parametrize("name", ["a/b", "../a", ".."])
def test_a_name_is_no_path(name, tmp_path: Path):
    with pytest.raises(StudioError, match="is a path; give a plain name"):
        check(Run(method=DreamBooth(data=str(tmp_path)), name=name))


def test_lora_goes_into_every_format(tmp_path: Path):
    formats = ("diffusers", "kohya", "comfy", "peft", "merged")
    check(Run(method=DreamBooth(data=str(tmp_path), export=Export(formats=formats))))
