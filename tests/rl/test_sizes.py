"""Sizes of rollouts, batches and parts: given ones win, the others follow, and what is proposed in a refusal works."""

import itertools
import math
import random
import re
from typing import Any

import pytest

from studio.catalog.checks import check
from studio.catalog.run import Run
from studio.errors import StudioError
from studio.flags import flags, origins
from studio.rl import sizes
from studio.settings import serial

MODELS = {
    "texforce": ("studio-tiny", "studio-tiny-dit", "sd15", "sdxl", "some/folder"),
    "ddpo": ("studio-tiny", "studio-tiny-dit", "sd15", "sdxl", "some/folder"),
    "flow_grpo": ("studio-tiny-dit", "sd35", "flux-dev", "some/folder"),
}
USUAL = [(method, model) for method, models in MODELS.items() for model in models]
ASKED = {
    "rollouts.images": (1, 2, 5, 10, 64, 96, 97, 1000),
    "rollouts.group": (1, 2, 3, 24, 50),
    "loop.batch_size": (1, 3, 7, 32, 600),
    "loop.accumulate": (1, 2, 5, 7, 30),
    "hardware.num_processes": (1, 2, 3, 8),
    "rollouts.steps": (2, 5, 13),
}


def run_of(method: str, given: dict[str, Any], model: str = "studio-tiny-dit") -> Run:
    """The run of given settings, dotted names to values; without the checks of several processes."""
    run = Run.of(method, model=model, prompts=("a red castle",), **serial.nest(given))
    check(run)
    return run


def sizes_of(run: Run) -> tuple[int, int, int]:
    return run.method.rollouts.images, run.loop.batch_size, run.loop.accumulate


def require_whole(run: Run) -> None:
    images, batch, parts = sizes_of(run)
    share = batch // run.hardware.num_processes * sizes.learned_steps(run.method)
    assert (images % run.method.rollouts.group, images % batch, batch % run.hardware.num_processes, share % parts) == (
        0, 0, 0, 0,
    )  # fmt: skip


def value_of(run: Run, name: str) -> Any:
    return next(
        v for path, v in serial.flatten(run.to_dict()).items() if path.removeprefix("method.") == name
    )


@pytest.mark.parametrize(("method", "model"), USUAL)
def test_what_nobody_changed_goes_together_as_it_is(method: str, model: str):
    run = run_of(method, {}, model)
    require_whole(run)
    assert sizes.follow(run, frozenset()) == run


@pytest.mark.parametrize(("method", "model"), USUAL)
def test_one_given_size_wins_and_the_others_follow(method: str, model: str):
    for name, values in ASKED.items():
        for value in values[-2:]:
            run = run_of(method, {name: value}, model)
            require_whole(run)
            assert value_of(run, name) == value


def test_any_sizes_go_together_or_are_refused_with_some_that_do():
    draw, refused = random.Random(0), 0
    for _ in range(60):
        method = draw.choice(list(MODELS))
        given = {name: draw.choice(ASKED[name]) for name in draw.sample(list(ASKED), draw.randint(2, 5))}
        if method != "flow_grpo" and draw.random() < 0.3:
            given["advantage.kind"] = "group-advantage"
        try:
            run = run_of(method, given)
        except StudioError as error:
            refused += 1
            _, _, advice = str(error).partition("; choose ")
            told = {name: int(value) for name, value in re.findall(r"([a-z_.]+) (\d+)", advice)}
            assert any(given[name] != value for name, value in told.items())
            given |= told
            run = run_of(method, given)
        require_whole(run)
        assert all(value_of(run, name) == value for name, value in given.items())
    assert 8 < refused < 52


CLASHES = (
    (
        {"rollouts.images": 10, "loop.batch_size": 4},
        "rollouts.images 10 is not a multiple of loop.batch_size 4, and a rollout is whole batches",
        "rollouts.images 12 with loop.batch_size 4",
    ),
    (
        {"rollouts.images": 5, "rollouts.group": 2},
        "rollouts.images 5 is not a multiple of rollouts.group 2, and a rollout is whole groups",
        "rollouts.images 6 with rollouts.group 2",
    ),
    (
        {"advantage.kind": "group-advantage", "rollouts.group": 1},
        "rollouts.group 1 is too few for group-advantage, which compares pictures of one prompt",
        "rollouts.group 2",
    ),
    (
        {"loop.batch_size": 7, "hardware.num_processes": 2},
        "loop.batch_size 7 is not a multiple of hardware.num_processes 2, each of which takes as many pictures",
        "loop.batch_size 8 with hardware.num_processes 2",
    ),
    (
        {"loop.batch_size": 5, "loop.accumulate": 7, "rollouts.steps": 10},
        "loop.batch_size 5 with 9 learned steps a picture cannot be cut into equal parts by loop.accumulate 7 in hardware.num_processes 1",
        "loop.accumulate 9 with loop.batch_size 5",
    ),
)


@pytest.mark.parametrize(("given", "wrong", "advice"), CLASHES)
def test_two_given_sizes_that_clash_are_named_with_some_that_do_not(
    given: dict[str, Any], wrong: str, advice: str
):
    with pytest.raises(StudioError) as error:
        run_of("texforce", given, "studio-tiny")
    assert str(error.value) == f"{wrong}; choose {advice}."


def test_settings_from_python_follow_alike_and_a_whole_run_is_checked():
    made = Run.of("texforce", prompts=("a castle",), model="studio-tiny", rollouts={"images": 10})
    assert sizes_of(made)[:2] == (10, 10)
    values = serial.merge(made.to_dict(), {"loop": {"batch_size": 4}})
    with pytest.raises(StudioError, match=r"rollouts.images 10 is not a multiple of loop.batch_size 4"):
        check(Run.from_dict(values))


def test_it_is_told_which_sizes_followed():
    argv = ["--prompts", "a castle", "--rollouts.images", "48"]
    run, start = flags.started("texforce", argv)
    told = {each.path: (each.value, each.origin) for each in origins.of_new(run, start, argv)}
    assert told["method.rollouts.images"] == (48, "flag")
    assert told["loop.batch_size"] == (24, "follows")
    assert told["method.rollouts.chunk"] == (32, "preset tiny")


def test_parts_are_no_larger_than_they_were():
    usual = run_of("texforce", {}, "studio-tiny")
    for images, processes in itertools.product((10, 48, 64, 100), (1, 2)):
        run = run_of(
            "texforce", {"rollouts.images": images, "hardware.num_processes": processes}, "studio-tiny"
        )
        share = [
            each.loop.batch_size * sizes.learned_steps(each.method) / each.loop.accumulate
            for each in (usual, run)
        ]
        assert share[1] / processes <= share[0]
        assert math.isclose(share[1] % processes, 0)


def test_batches_that_counted_transitions_count_pictures_now():
    old = Run.of("ddpo", prompts=("a castle",), model="tiny:sd1").to_dict()
    del old["method"]["ppo"]["last_step"]
    old["method"]["rollouts"]["steps"], old["loop"]["batch_size"] = 10, 320
    new = sizes.upgraded(old)
    assert (new["loop"]["batch_size"], new["method"]["ppo"]["last_step"]) == (32, True)
    assert sizes.upgraded(new) == new
