"""The command line's flags: what is refused, in which words, and what the help says."""

import dataclasses
from pathlib import Path

import pytest

from studio.catalog.run import Run
from studio.diffusion.config import LogitNormalTimes
from studio.errors import StudioError
from studio.flags import flags
from studio.settings import serial
from studio.settings.run import Loop, Optim
from studio.settings.sampling import SampleRequest
from trainers.texforce.config import TexForce


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--loop.step", "3"], r"no flag --loop.step; did you mean --loop.steps\?"),
        (["--lr", "3"], r"did you mean --optim.lr\?"),
        (["--hardware.no-tf33"], r"did you mean --hardware.no-tf32\?"),
        (["--adapter", "oft", "--adapter.rank", "3"], "it belongs to --adapter lora or"),
        (["--adapter"], "--adapter needs a name after it; choose one of: lora, "),
        (["--adapter", "lor"], r"Unknown adapter 'lor'; did you mean 'lora'\?"),
        (["--loop.steps", "0"], "loop.steps was given as 0"),
        (["--adapter.rank", "0"], "adapter.rank was given as 0"),
        (["--prior_weight", "-1"], "prior_weight was given as -1"),
        (["photos"], "studio train dreambooth does not know what 'photos' is for"),
    ],
)
def test_a_wrong_flag_is_named_as_it_was_typed_with_what_to_type(given: list[str], said: str):
    with pytest.raises(StudioError, match=said):
        flags.parse_run("dreambooth", ["--data", ".", *given])


def test_a_misspelled_flag_is_said_before_a_missing_one():
    with pytest.raises(StudioError, match=r"studio sample has no flag --prompts; did you mean --prompt\?"):
        flags.parse(SampleRequest, ["--prompts", "a fox"], prog="studio sample")


def test_missing_settings_are_named_with_what_they_are_for():
    with pytest.raises(StudioError, match=r"needs --data \(folder of pictures of the subject; .*\)\.$"):
        flags.parse_run("dreambooth", ["--class-word", "dog"])
    with pytest.raises(StudioError, match=r"needs --content \(.*\) and --style \("):
        flags.parse_run("style_injection", [])


def test_underscores_equals_signs_and_switches_are_read():
    run, _ = flags.parse_run("dreambooth", ["--data=.", "--loop.batch_size=2", "--hardware.no-tf32"])
    assert (run.loop.batch_size, run.hardware.tf32) == (2, False)


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_settings_are_finite(value: float):
    with pytest.raises(StudioError, match="finite"):
        Optim(lr=value)


@pytest.mark.parametrize("given", ["dreambooth", TexForce])
def test_a_run_needs_the_settings_of_a_method(given: object):
    with pytest.raises(StudioError, match="give a method's settings, such as DreamBooth"):
        Run(method=given)


def test_one_text_where_a_list_is_wanted_is_told_how_to_write_it():
    with pytest.raises(StudioError, match=r"prompt was given as 'a fox': give a list, such as \['a fox'\]"):
        SampleRequest(prompt="a fox")  # pyright: ignore[reportArgumentType]  # the mistake


def test_help_of_a_method_explains_the_settings_of_every_run_and_names_the_choices(
    capsys: pytest.CaptureFixture[str],
):
    with pytest.raises(SystemExit):
        flags.parse_run("dreambooth", ["--help"])
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    texts = serial.helps(Run)
    assert [n for n in ("name", "output", "seed", "trackers") if texts[n][:20] not in shown] == []
    assert "--adapter lora, loha" in shown
    assert "--preset takes one of: " in shown


def test_settings_that_build_on_others_keep_their_texts():
    texts = serial.helps(TexForce)
    assert [name for name in serial.hints(TexForce) if name not in texts] == []
    assert serial.helps(Loop)["steps"] == "Optimizer steps."


def test_a_number_taken_apart_is_a_number():
    assert flags.number({}, "size", 512) == 512
    with pytest.raises(StudioError, match="--memory-gib was given as 'x'; give a number"):
        flags.number({"memory_gib": "x"}, "memory_gib", 0.0)


def _run() -> Run:
    return flags.parse_run("dreambooth", ["--data", "photos", "--class-word", "dog", "--optim.lr", "3e-4"])[0]


def test_a_run_to_go_on_with_takes_the_flags_of_a_new_one():
    run = _run()
    words = "--loop.steps 2000 --denoising.times logit-normal-times --denoising.times.mean 1 --adapter.rank 8"
    changed = flags.change_run(run, words.split())
    assert changed.loop.steps == 2000
    assert changed.method.denoising.times == LogitNormalTimes(mean=1.0)
    assert changed.method.adapter == dataclasses.replace(run.method.adapter, rank=8)
    assert changed.optim == run.optim
    assert flags.change_run(run, ["--loop.steps", str(run.loop.steps)]) == run


def test_a_choice_made_anew_forgets_the_settings_of_the_old_one():
    run = flags.change_run(_run(), ["--adapter", "oft", "--adapter.block-size", "8"])
    assert serial.kind(type(run.method.adapter)) == "oft"
    assert run.method.adapter.block_size == 8


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--loop.step", "3"], r"no flag --loop.step; did you mean --loop.steps\?"),
        (["--adapter", "lor"], r"Unknown adapter 'lor'; did you mean 'lora'\?"),
        (["--loop.steps", "0"], "loop.steps was given as 0"),
        (["5"], "studio train --resume RUN does not know what '5' is for; write a flag before it"),
    ],
)
def test_a_wrong_flag_of_a_run_to_go_on_with_is_refused_too(given: list[str], said: str):
    with pytest.raises(StudioError, match=said):
        flags.change_run(_run(), given)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--loop.steps", "1e3"], r"--loop\.steps: no whole number: '1e3'"),
        (["--loop.steps"], r"missing value for argument '--loop\.steps'.*--flag='-value'"),
        (["--prior", "none"], "no-prior"),
        (["--optim.betas", "1"], r"Expected 2 values"),
        (["--hardware.device", "tpu"], r"invalid choice 'tpu'.*'cuda'"),
        (["--loop.steps", "3", "--loop.epochs", "2"], "two lengths; give one"),
    ],
)
def test_a_value_that_cannot_be_read_is_one_sentence(given: list[str], said: str):
    with pytest.raises(StudioError, match=said) as refused:
        flags.parse_run("dreambooth", ["--data", ".", *given])
    assert "\n" not in str(refused.value)


def test_a_methods_setting_in_the_wrong_place_of_a_file_is_told_its_place(tmp_path: Path):
    file = tmp_path / "mine.yaml"
    file.write_text("adapter: {rank: 3}\n")
    with pytest.raises(
        StudioError, match=r"adapter is a setting of the method.*`method: \{adapter: \.\.\.\}`"
    ):
        flags.parse_run("dreambooth", ["--data", ".", "--config", str(file)])
    for wrong in ("method: 3\n", "method: []\n"):
        file.write_text(wrong)
        with pytest.raises(StudioError, match="method was given as"):
            flags.parse_run("dreambooth", ["--data", ".", "--config", str(file)])
