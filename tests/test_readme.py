"""The README keeps its word: its Python runs, its commands and make targets exist."""

import dataclasses
import importlib
import re
import shutil
from pathlib import Path

import pytest

from studio import assets
from studio.catalog import methods
from studio.catalog.run import Run
from studio.commands.table import COMMANDS
from studio.same_subject.config import NoPrior
from studio.settings.run import Preview
from tests import tree

README = tree.README.read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def shortened(run: Run) -> Run:
    """The same run, one step long, on a model of noise."""
    method = dataclasses.replace(run.method, model="tiny:sd1", prior=NoPrior())
    loop = dataclasses.replace(run.loop, steps=1, batch_size=1)
    return dataclasses.replace(run, method=method, loop=loop, preview=Preview())


def test_the_python_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    photos = assets.path("samples/unicorn")  # without its captions, as people's photos are
    shutil.copytree(photos, tmp_path / "photos", ignore=shutil.ignore_patterns("*.jsonl"))
    monkeypatch.chdir(tmp_path)
    (code,) = blocks("python")
    short = code.replace("studio.train(run)", "studio.train(shortened(run))")
    assert short != code
    exec(compile(short, "README.md", "exec"), {"shortened": shortened})
    assert list((tmp_path / "runs").glob("*/export/*.safetensors"))


@pytest.mark.parametrize(
    "name", sorted(set(re.findall(r"^studio (\w+)", "\n".join(blocks("bash")), re.MULTILINE)))
)
def test_the_command_exists(name: str):
    assert name in COMMANDS


@pytest.mark.parametrize("target", sorted(set(re.findall(r"(?:^|`)make (\w+)", README, re.MULTILINE))))
def test_the_make_target_exists(target: str):
    assert re.search(rf"^{target}:", (tree.ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)


@pytest.mark.parametrize("name", [n for n in methods.ours() if not methods.card(n).hidden])
def test_the_settings_of_a_method_come_from_its_folder(name: str):
    settings = methods.card(name).config
    assert vars(importlib.import_module(f"trainers.{name}"))[settings.__name__] is settings


def test_linked_files_exist():
    links = re.findall(r"\]\(([^):#]+)\)", README)
    assert links
    assert [link for link in links if not (tree.ROOT / link).exists()] == []
