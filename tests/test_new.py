"""`studio new method`: files that run, that pass this project's checks, and that replace nothing."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import trainers
from studio.catalog import methods, outside
from studio.catalog.run import Run
from studio.commands.new import method, write
from studio.console import Console
from studio.errors import StudioError
from studio.testing import Contract, case_of, small
from studio.training.train import run_to_end
from tests import tree


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a package `fresh_method`."""
    folder = tmp_path_factory.mktemp("outside")
    write("fresh_method", folder, outside=True)
    return folder


class TestOutside(Contract):
    """What is written keeps the contract at once."""

    @pytest.fixture
    def run(self, written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
        monkeypatch.chdir(written)
        return small(case_of(methods.card("fresh_method"))(tmp_path / "data"), tmp_path / "runs")


def test_a_method_in_a_checkout_has_its_case_beside_its_test_and_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "trainers").mkdir()
    (tmp_path / "tests" / "trainers").mkdir(parents=True)
    names = [str(file) for file in write("fresh_inside", tmp_path, outside=False)]
    tests = ["tests/trainers/case_fresh_inside.py", "tests/trainers/test_fresh_inside.py"]
    assert names == [*(f"trainers/fresh_inside/{n}.py" for n in ("__init__", "config", "trainer")), *tests]
    monkeypatch.setattr(trainers, "__path__", [*trainers.__path__, str(tmp_path / "trainers")])
    assert methods.card("fresh_inside").name == "fresh_inside"
    case = outside.module(str(tmp_path / tests[0]), what="Case", field="method").case
    assert run_to_end(small(case(tmp_path / "data"), tmp_path / "runs")).status() == "done"


@pytest.mark.parametrize("name", ["x", "a_longer_name_of_thirty_letter"])
@pytest.mark.parametrize("away", [True, False], ids=["outside", "inside"])
def test_what_is_written_passes_this_projects_checks(name: str, away: bool, tmp_path: Path):
    if not away:  # what ruff tells packages of the checkout from others by
        (tmp_path / "studio").symlink_to(tree.ROOT / "studio")
        (tmp_path / "trainers").mkdir()
        (tmp_path / "tests" / "trainers").mkdir(parents=True)
    shutil.copy(tree.ROOT / "pyproject.toml", tmp_path)
    settings = ["--no-cache", *map(str, write(name, tmp_path, outside=away))]
    for check in (["check"], ["format", "--check"]):
        command = [sys.executable, "-m", "ruff", *check, *settings]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "needs one name, such as my_method"),
        (["My-Method", "--outside"], "'My_Method' cannot be the name of a method"),
        (["class", "--outside"], "'class' cannot be the name"),
        (["json", "--outside"], "Python finds a module 'json' already"),
        (["dreambooth", "--outside"], "There is a method or a folder 'dreambooth' already; nothing was written"),
        (["taken", "--outside"], "There is a method or a folder 'taken' already; nothing was written"),
        (["mine", "--outsid"], r"did you mean '--outside'\?"),
        (["mine"], "is no checkout of Studio.*; add --outside to write ./mine"),
    ],
)  # fmt: skip
def test_what_cannot_be_written_is_one_sentence_and_nothing_is_written(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "taken").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StudioError, match=said):
        method(words, Console())
    assert [file.name for file in tmp_path.rglob("*")] == ["taken"]


def test_the_command_says_what_to_type_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    method(["my-own", "--outside"], Console())
    shown = capsys.readouterr().out
    assert all(
        line in shown for line in ("my_own/case.py", "studio train my_own --data DIR", "pytest my_own")
    )
