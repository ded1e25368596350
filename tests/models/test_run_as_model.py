"""A run folder in a model's place: the whole model that it exported, or a sentence that says what the run is for."""

import json

import pytest

from studio.catalog.recognize import recognize
from studio.errors import StudioError
from studio.models.build import load
from tests.models.test_checkpoints import same, saved


def a_run(place, model, exported=None):
    """A run folder that started from a model and exported a whole one."""
    (place / "export").mkdir(parents=True)
    (place / "config.json").write_text(json.dumps({"method": {"kind": "dreambooth", "model": model}}))
    (place / "events.jsonl").touch()
    if exported is not None:
        saved(exported, place / "export" / "merged")
    return place


def test_a_run_that_exported_a_whole_model_loads_as_that_model(families, backend, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    a_run(tmp_path / "runs" / "whole", "tiny:sd1", families["sd1"])
    a_run(tmp_path / "runs" / "next", "whole", families["sd1"])
    for name in (str(tmp_path / "runs" / "whole"), "runs/whole", "whole", "next"):
        assert same(families["sd1"].denoiser, load(name, backend).denoiser)
    assert "as the run" in recognize("whole").why


def test_a_run_that_trained_an_adapter_is_no_model(backend, tmp_path):
    place = a_run(tmp_path / "run", "tiny:sd1")
    (place / "export" / "merged.part").mkdir()  # an export that was cut off holds no index yet
    with pytest.raises(
        StudioError, match=r"exported no whole model.*--artifact.*--start.*\(tiny:sd1\) to --model"
    ):
        load(str(place), backend)
