"""The `studio` command: every command helps, and what is wrong is one sentence with exit code 2."""

import pytest

from studio import cli, usage


def ask(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    try:
        code = cli.run(list(arguments))
    except SystemExit as ended:  # help and values that tyro refuses
        code = int(str(ended.code or 0))
    shown = capsys.readouterr()
    return code, shown.out, shown.err


def test_the_help_names_every_command():
    assert cli.COMMANDS.keys() == usage.COMMANDS.keys()


@pytest.mark.parametrize(
    "command",
    [
        *cli.COMMANDS,
        "data check",
        "data caption",
        "data sets",
        "eval subject",
        "eval robustness",
        "train vit",
    ],
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
        ("plan dreambooth --data . --memory-gib x", "--memory-gib was given as 'x'"),
        ("adapters --rounds x", "--rounds was given as 'x'"),
        ("runs show", "studio runs show needs a run"),
        ("runs verify-resume x --foo", "Unknown argument '--foo'"),
        ("eval", "studio eval needs the name of an evaluation"),
        ("train decor", "decor trains nothing"),
        ("plan style_injection --content a.png --style b.png", "style_injection trains nothing"),
    ],
)
def test_what_is_wrong_is_one_sentence(typed: str, said: str, capsys: pytest.CaptureFixture[str]):
    code, out, err = ask(capsys, *typed.split())
    assert (code, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1
