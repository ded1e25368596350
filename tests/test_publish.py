"""The model card of a run, up to the upload."""

from pathlib import Path

import pytest

from studio import publish
from studio.config import Loop, Preview, Run
from studio.errors import StudioError
from studio.train import run_to_end
from tests.toy.config import Toy


def test_the_card_names_base_scores_and_settings(tmp_path: Path) -> None:
    run = Run(method=Toy(), output=str(tmp_path), name="toy", loop=Loop(steps=2), preview=Preview(every=1))
    text = publish.card(run_to_end(run))
    assert "base_model: line" in text
    assert "- quality: -" in text
    assert '"steps": 2' in text


def test_no_network_is_one_clear_sentence(tmp_path: Path) -> None:
    folder = run_to_end(Run(method=Toy(), output=str(tmp_path), name="toy", loop=Loop(steps=1)))
    with pytest.raises(StudioError, match="could not be published"):
        publish.push(folder, "someone/toy")
