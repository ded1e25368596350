"""The `studio` command: every command helps, and what is wrong is one sentence with exit code 2."""

import importlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from studio import cli
from studio.catalog.run import Run
from studio.commands import training, usage
from studio.commands.table import COMMANDS, Command, find
from studio.console import Console
from studio.data.config import Labelled
from studio.records import runs
from studio.records.runs import EventLog
from trainers.dreambooth.config import DreamBooth
from trainers.vit.config import Vit


def ask(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    try:
        code = cli.run(list(arguments))
    except SystemExit as ended:  # help and values that tyro refuses
        code = int(str(ended.code or 0))
    shown = capsys.readouterr()
    return code, shown.out, shown.err


def words(commands: Mapping[str, Command] = COMMANDS, before: str = "") -> Iterator[str]:
    """Every command and verb, as it is typed."""
    for name, command in commands.items():
        yield f"{before}{name}"
        yield from words(command.verbs, f"{before}{name} ")


def test_every_command_and_verb_leads_somewhere():
    for typed in words():
        command = find([*typed.split(), "--help"]).command
        module, _, function = command.where.partition(":")
        assert command.verbs or callable(getattr(importlib.import_module(module), function)), typed


@pytest.mark.parametrize(
    "command", [*words(), "train vit", "plan dreambooth", "runs show RUN", "data check DIR"]
)
def test_every_command_takes_help(command: str, capsys: pytest.CaptureFixture[str]):
    code, out, err = ask(capsys, *command.split(), "--help")
    assert (code, err) == (0, "")
    assert "studio" in out


def test_methods_that_train_nothing_are_listed_as_edits():
    trained, _, edits = usage.usage().partition("edits of sampling")
    assert "  dreambooth " in trained
    assert "  decor  " in edits
    assert "  decor  " not in usage.of_train()


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("trian", "Unknown command 'trian'; did you mean 'train'?"),
        ("trian --help", "Unknown command 'trian'"),
        ("data check . --size x", "--size was given as 'x'; give a number."),
        ("plan dreambooth --data . --ram 16GiB", "--ram goes with --gpu"),
        ("plan dreambooth --data . --gpu x", "--gpu was given as 'x'"),
        ("adapters --rounds x", "--rounds was given as 'x'"),
        ("runs show", "studio runs show needs a run"),
        ("runs verify-resume x --foo", "Unknown argument '--foo'"),
        ("eval", "studio eval needs one of: subject, dreambench"),
        ("decor component", "did you mean 'components'?"),
        ("runs list . more", "Unknown argument 'more'"),
        ("data check", "studio data check needs a folder of pictures or a file"),
        ("sample --prompt fox --artifact nowhere", "nowhere does not exist; give a run folder"),
        ("eval subject --artifact nowhere --data .", "nowhere does not exist"),
        ("eval subject --artifact jedi-tiny --data nowhere", "Data folder 'nowhere' does not exist"),
        ("train cola --data nowhere.json", "There is no file 'nowhere.json'"),
        ("train captioner --data nowhere", "Data folder 'nowhere' does not exist"),
        (
            "sample --prompt fox --width 100000",
            "width was given as 100000: input should be less than or equal to 8192",
        ),
        ("train decor", "decor trains nothing"),
        ("plan style_injection --content a.png --style b.png", "style_injection trains nothing"),
    ],
)
def test_what_is_wrong_is_one_sentence(typed: str, said: str, capsys: pytest.CaptureFixture[str]):
    code, out, err = ask(capsys, *typed.split())
    assert (code, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1


def finished(method: object, output: Path) -> str:
    """A run folder as a finished training leaves it."""
    folder = runs.create(Run(method=method, output=str(output), name="done"))
    log = EventLog(folder)
    log.write("preview", step=0, folder="", prompts=["a photo of sks dog"], scores={})
    log.write("done", step=1000, seconds=1.0)
    log.close()
    return str(folder.path)


def test_a_finished_run_says_what_to_do_with_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    training.finish(finished(DreamBooth(data="photos"), tmp_path), Console())
    assert (
        f"studio sample --artifact {tmp_path / 'done'} --prompt 'a photo of sks dog'"
        in capsys.readouterr().out
    )


def test_a_finished_classifier_is_sent_to_its_evaluation(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    training.finish(finished(Vit(data=Labelled(train="my pets")), tmp_path), Console())
    told = f"studio eval robustness --model {tmp_path / 'done'} --data.train 'my pets'"
    assert told in capsys.readouterr().out


def test_resuming_a_finished_run_says_how_to_train_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = finished(DreamBooth(data="photos"), tmp_path)
    code, out, _ = ask(capsys, "train", "--resume", path)
    assert code == 0
    assert "is finished: 1000 of 1000 steps" in out
    assert f"studio train --resume {path} --loop.steps 2000" in out


def test_a_line_of_weights_is_a_table(capsys: pytest.CaptureFixture[str]):
    Console().points([{"alpha": 0.0, "clean": 0.5}, {"alpha": 1.0, "clean": 0.25}])
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["alpha", "clean"], ["0.000", "0.500"], ["1.000", "0.250"],
    ]  # fmt: skip
    Console().points([])
    assert capsys.readouterr().out == ""


def test_a_damaged_run_is_said_and_does_not_hide_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder = Path(finished(DreamBooth(data="photos"), tmp_path))
    (folder / "events.jsonl").write_text(
        '{"event": "start", "step": 0}\n\0\0\n[]\n{"event": "done", "step": 9}\n'
    )
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_text('{"method": ')
    code, out, _ = ask(capsys, "runs", "list", str(tmp_path))
    assert (code, [line.split() for line in out.splitlines()[1:]]) == (
        0,
        [["broken", "new"], ["done", "done"]],
    )
    code, _, err = ask(capsys, "runs", "show", str(broken))
    assert code == 2
    assert "config.json is damaged, it holds no settings" in err


def test_a_run_that_draws_nothing_is_no_artifact(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = finished(Vit(), tmp_path)
    code, _, err = ask(capsys, "sample", "--prompt", "a fox", "--artifact", path)
    assert code == 2
    assert "is of method vit, which trains nothing that draws pictures" in err


def test_a_settings_file_that_is_broken_is_told_by_its_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "run.yaml").write_text("loop:\n  steps: [\n")
    code, _, err = ask(capsys, "train", "dreambooth", "--config", str(tmp_path / "run.yaml"))
    assert code == 2
    assert "is not valid YAML or JSON (line 3); repair it" in err


def test_the_resolved_settings_say_where_they_come_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    file = tmp_path / "mine.yaml"
    file.write_text("method: {kind: dreambooth, class_word: fox}\noptim: {lr: 0.5}\n")
    given = ["--config", str(file), "--data", "photos", "--loop.steps", "7", "--no-text-encoder"]
    code, out, err = ask(capsys, "--json", "train", "dreambooth", *given, "--print-config")
    assert (code, err) == (0, "")
    found = json.loads(out)["settings"]
    expected = {
        "method.data": ("photos", "flag"),
        "method.text_encoder": (False, "flag"),
        "method.class_word": ("fox", "file"),
        "optim.lr": (0.5, "file"),
        "method.adapter.rank": (16, "preset tiny"),
        "loop.steps": (7, "flag"),
        "loop.clip_norm": (1.0, "default"),
    }
    assert {name: (found[name]["value"], found[name]["from"]) for name in expected} == expected
    assert list(tmp_path.iterdir()) == [file]
    _, out, _ = ask(capsys, "train", "dreambooth", *given, "--print-config")
    assert "preset: tiny, since studio-tiny is a small model of this project" in out


def test_numbers_in_json_are_numbers(capsys: pytest.CaptureFixture[str]):
    _, out, _ = ask(capsys, "models", "list", "--json")
    sizes = [json.loads(line)["megabytes"] for line in out.splitlines()]
    assert len(sizes) > 3
    assert all(isinstance(size, float) for size in sizes)
