"""What settings rule out together is said before anything is loaded."""

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


@pytest.mark.parametrize("name", ["a/b", "../a", ".."])
def test_a_name_is_no_path(name, tmp_path: Path):
    with pytest.raises(StudioError, match="is a path; give a plain name"):
        check(Run(method=DreamBooth(data=str(tmp_path)), name=name))


def test_lora_goes_into_every_format(tmp_path: Path):
    formats = ("diffusers", "kohya", "comfy", "peft", "merged")
    check(Run(method=DreamBooth(data=str(tmp_path), export=Export(formats=formats))))
