"""Methods and families from outside: installed, a dotted package, a folder or a file; all take the same way as ours."""

import json
import subprocess
import sys
import textwrap
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

import studio
from studio import assets, cli
from studio.catalog import methods
from studio.commands import usage
from studio.errors import StudioError
from studio.records import runs
from ui import drafts

CONFIG = '''
"""A method of somebody's own."""

from studio.catalog.cards import Card, Preset
from studio.catalog.suits import Suits
from studio.settings.config import config


@config
class Mine:
    """Fit a line, in a way of my own."""

    model: str = "line"
    """Name of the model."""
    noise: float = 0.1
    """Standard deviation of the noise."""
    dropout: float = 0.0
    """Dropout."""
    fail_at: int = 0
    """Step that fails."""
    die_at: int = 0
    """Step that dies."""


METHOD = Card(name="mine", title="Mine", summary="fits a line", paper="none", config=Mine,
              trainer="TRAINER", presets={"one": Preset({"optim.lr": 0.5}, suits=Suits(names=("curve",)), note="for curves")})
'''
TRAINER = '''
"""The trainer."""

from tests.toy.trainer import ToyTrainer


class MineTrainer(ToyTrainer):
    """As the toy does."""
'''
SHORT = [
    "--loop.steps",
    "2",
    "--loop.batch-size",
    "2",
    "--loop.log-every",
    "1",
    "--preview.every",
    "0",
    "--trackers",
]


def package(folder: Path) -> None:
    """A package with settings and trainer in files of their own."""
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text('"""Mine."""\n')
    (folder / "config.py").write_text(CONFIG.replace("TRAINER", ".trainer:MineTrainer"))
    (folder / "trainer.py").write_text(TRAINER)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder that no other test has seen."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return tmp_path


def write(kind: str, place: Path, stem: str) -> str:
    """A method of a kind in a folder, under a module name that no other test takes; gives what a person types."""
    match kind:
        case "dotted package":
            package(place / f"{stem}_lab" / "mine")
            (place / f"{stem}_lab" / "__init__.py").write_text('"""Lab."""\n')
            return f"{stem}_lab.mine"
        case "folder here":
            package(place / stem)
            return stem
        case "folder below":
            package(place / "methods" / stem)
            return f"methods/{stem}"
        case "file below":
            (place / "methods").mkdir()
            text = CONFIG.replace("TRAINER", ":MineTrainer") + TRAINER.replace('"""The trainer."""', "")
            (place / "methods" / f"{stem}.py").write_text(text)
            return f"methods/{stem}.py"
        case "file":
            (place / f"{stem}.py").write_text(
                CONFIG.replace("TRAINER", ":MineTrainer") + TRAINER.replace('"""The trainer."""', "")
            )
            return f"{stem}.py"
        case _:
            away = place.parent / f"{place.name}-away"
            away.mkdir()
            file = away / f"{stem}.py"
            file.write_text(
                CONFIG.replace("TRAINER", ":MineTrainer") + TRAINER.replace('"""The trainer."""', "")
            )
            return str(file)


KINDS = ["dotted package", "folder here", "folder below", "file", "file below", "file elsewhere"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_method_of_ones_own_helps_trains_resumes_and_is_found_again(
    kind: str, place: Path, capsys: pytest.CaptureFixture[str]
):
    typed = write(kind, place, f"own_{KINDS.index(kind)}")
    with pytest.raises(SystemExit):
        cli.run(["train", typed, "--help"])
    assert "Standard deviation of the noise" in capsys.readouterr().out
    assert cli.run(["train", typed, "--name", "one", "--model", "curve", *SHORT]) == 0
    assert "preset: one, since curve is its model (for curves)" in capsys.readouterr().out
    folder, run = runs.open_run("one")
    assert folder.status() == "done"
    assert run.optim.lr == 0.5
    kept = json.loads(folder.config.read_text())["method"]["kind"]
    assert methods.card(kept) is methods.card_of(run.method)
    assert cli.run(["train", "--resume", "one", "--loop.steps", "3"]) == 0
    assert studio.Run.of(typed, model="curve").optim.lr == 0.5


def test_a_run_of_ones_own_method_resumes_in_another_process(place: Path):
    typed = write("folder below", place, "own_fresh")
    run = studio.Run.of(typed, name="one", loop={"steps": 2, "batch_size": 2}, trackers=())
    list(studio.train(run))
    command = [sys.executable, "-m", "studio.cli", "train", "--resume", "one", "--loop.steps", "3"]
    root = str(Path(__file__).resolve().parent.parent)
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": root, "PATH": "/usr/bin:/bin"},
        check=False,
    )
    assert "done at step 3" in done.stdout, done.stderr


def test_methods_here_are_listed_by_their_text_alone(place: Path):
    package(place / "own_listed")
    package(place / ".hidden")
    (place / "folder.py").mkdir()
    (place / "own_breaks.py").write_text("raise SystemExit('imported')\nMETHOD = Card(name='x')\n")
    (place / "other.py").write_text("x = 1\n")
    assert methods.here() == ["own_breaks.py", "own_listed"]
    assert {"own_breaks.py", "own_listed", "dreambooth"} <= set(studio.list_methods())
    assert "own_listed           yours, in this folder" in usage.usage()
    assert ("own_listed (yours)", "own_listed") in drafts.offered()
    assert "own_listed" not in sys.modules


def test_the_form_of_the_app_is_drawn_from_ones_own_settings(place: Path):
    package(place / "own_form")
    labels = {leaf.name for leaf in drafts.fields("own_form", drafts.base("own_form", "auto"))}
    assert "method.noise" in labels


def test_an_installed_method_is_found_by_its_name(place: Path, monkeypatch: pytest.MonkeyPatch):
    package(place / "own_installed")
    sys.path.append(str(place))
    points = [
        EntryPoint("my-lines", "own_installed", methods.GROUP),
        EntryPoint("dreambooth", "own_installed", methods.GROUP),
        EntryPoint("broken", "own_not_there", methods.GROUP),
    ]
    monkeypatch.setattr(methods, "entry_points", lambda group: points if group == methods.GROUP else [])
    methods.installed.cache_clear()
    try:
        assert methods.card("my-lines").title == "Mine"
        assert methods.card("my_lines").title == "Mine"
        assert methods.card("dreambooth").title == "DreamBooth"
        assert studio.Run.of("my-lines").to_dict()["method"]["kind"] == "my-lines"
        listed = studio.list_methods()
        assert "my-lines" in listed
        assert "broken" not in listed
        with pytest.raises(StudioError, match="broken"):
            methods.card("broken")
    finally:
        methods.installed.cache_clear()


_CARD = (
    "from studio.catalog.cards import Card\n"
    "METHOD = Card(name='x', title='X', summary='x', paper='none', config={}, trainer='{}')\n"
)
_SETTINGS = "from studio.settings.config import config\n@config\nclass S:\n    '''Mine.'''\n    seed: int = 3\n    '''Mine.'''\n"


@pytest.mark.parametrize(
    ("files", "typed", "said"),
    [
        ({}, "nowhere", "Unknown method 'nowhere'"),
        ({}, "dreamboth", "did you mean 'dreambooth'"),
        ({}, "nowhere.py", "there is no file"),
        ({}, "no.where", "there is neither a module"),
        ({"own_empty.py": "x = 1"}, "own_empty.py", "has no card"),
        ({"own_wrong.py": "x = 1 / 0"}, "own_wrong.py", "ZeroDivisionError"),
        ({"own_other.py": "METHOD = 3"}, "own_other.py", "has no card"),
        ({}, "/", "Unknown method '/'"),
        ({}, "~no-such-user/x", "Unknown method"),
        ({"own_int.py": _CARD.format("int", ":X")}, "own_int.py", "no class with @config"),
        (
            {"own_ours.py": "from trainers.vit.config import Vit\n" + _CARD.format("Vit", ":X")},
            "own_ours.py",
            "stand beside their card",
        ),
        ({"own_seed.py": _SETTINGS + _CARD.format("S", ":X")}, "own_seed.py", "a setting called 'seed'"),
    ],
)
def test_what_is_wrong_with_a_method_from_outside_is_one_sentence(
    files: dict[str, str], typed: str, said: str, place: Path, capsys: pytest.CaptureFixture[str]
):
    for name, text in files.items():
        (place / name).write_text(text)
    assert cli.run(["train", typed]) == 2
    told = capsys.readouterr().err
    assert said in told
    assert told.count("\n") == 1


def test_code_in_the_folder_of_a_run_is_not_imported(place: Path):
    package(place / "runs" / "theirs")
    (place / "runs" / "theirs" / "config.json").write_text('{"method": {"kind": "runs/theirs"}}')
    with pytest.raises(StudioError, match="whose code is not run"):
        runs.open_run("theirs")


FAMILY = '''
"""A family of one's own: the tiny U-Net, told apart by its name."""

from studio.models.families.sd1.model import StableDiffusion
from studio.models.families.sd1.tiny import build


class Mine(StableDiffusion):
    """As SD 1.x."""


def load(backend, text):
    """The family with random weights."""
    with backend.seeded(3):
        return Mine(build(), backend, text)


def wrong(backend, text):
    """Gives no family."""
    return 3
'''


def test_a_family_of_ones_own_trains_and_samples(place: Path):
    (place / "families").mkdir()
    (place / "families" / "own_family.py").write_text(textwrap.dedent(FAMILY))
    model = "families/own_family.py:load"
    photos = str(assets.path("samples/unicorn"))
    settings = {"prior": "no-prior", "token": "sks", "loop": {"steps": 1, "batch_size": 1}, "trackers": ()}
    run = studio.Run.of("dreambooth", data=photos, model=model, name="one", **settings)
    assert list(studio.train(run))[-1]["event"] == "done"
    assert studio.sample(artifact="one", prompt="a sks dog", steps=1).request.model == model
    with pytest.raises(StudioError, match="gave a int"):
        studio.sample(model="families/own_family.py:wrong", prompt="a dog", steps=1)
