"""The doctor reports what works by running it."""

import pytest
import torch

from studio import doctor
from studio.backend.devices import can_compute


@pytest.fixture(scope="module")
def report() -> doctor.Report:
    return doctor.doctor()


def test_every_area_says_something(report: doctor.Report):
    areas = ["versions", "devices", "precision", "attention", "optional", "storage", "embedded"]
    assert list(report.as_dict()) == areas


def test_versions_are_those_installed(report: doctor.Report):
    assert report.as_dict()["versions"]["torch"] == torch.__version__.partition("+")[0]


def test_the_plain_kernel_works_everywhere(report: doctor.Report):
    assert report.as_dict()["attention"]["math"] == doctor.WORKS


def test_a_library_that_is_absent_is_called_so(report: doctor.Report, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(doctor, "_OPTIONAL", ("no-such-library",))
    assert doctor.doctor().as_dict()["optional"] == {"no-such-library": "not installed"}


def test_the_text_holds_every_fact(report: doctor.Report):
    text = report.text()
    assert all(f"- {name}: {value}" in text for _, name, value in report.lines)


def test_the_report_names_no_user_folder_of_runs(report: doctor.Report):
    assert not any("/" in value for area, name, value in report.lines if (area, name) == ("storage", "runs"))


def test_problems_are_what_is_missing():
    facts = {"embedded": {"stickers": "present", "models/x": "missing"}}
    assert doctor.problems(facts) == ["embedded/models/x: missing"]


def test_a_precision_that_cannot_compute_gives_its_reason():
    assert can_compute(torch.float32, torch.device("cpu")) == ""
    assert "Bool" in can_compute(torch.bool, torch.device("cpu"))
