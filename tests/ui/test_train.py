"""The Train page: forms drawn from settings, what they would run, and wrong settings."""

import shlex

import gradio as gr
import pytest

from studio.catalog import methods, presets
from studio.catalog.run import Run
from studio.errors import StudioError
from studio.flags import flags
from studio.settings import serial
from tests.ui.conftest import picture
from ui import drafts, forms
from ui.workspace import Workspace

METHODS = [name for _, name in drafts.offered()]


def filled(method: str, workspace: Workspace, **changes) -> dict:
    """What the form of a method holds after a person chose a folder and changed some values."""
    picture(workspace.root / "photos" / "a.png")
    values = serial.merge(drafts.base(method, "auto"), serial.nest(changes))
    if values["method"].get("data") == "":
        values["method"]["data"] = "photos"
    if "prompts" in values["method"] and not values["method"]["prompts"]:
        values["method"]["prompts"] = ["a red star"]
    fields = drafts.fields(method, values)
    boxes = [forms.draw(leaf) for leaf in fields]
    found = forms.collect(fields, [box.value for box in boxes])
    found["method"]["kind"] = method
    found["preset"] = values["preset"]
    return found


@pytest.mark.parametrize("method", METHODS)
def test_a_form_gives_back_the_settings_it_was_drawn_from(method: str, workspace: Workspace):
    run = drafts.build(filled(method, workspace), workspace)
    assert methods.card_of(run.method).name == method
    usual = presets.values_of(methods.card(method), run.preset)
    given = {k: v for k, v in serial.flatten(run.to_dict()).items() if k in serial.flatten(usual)}
    assert given == {k: v for k, v in serial.flatten(usual).items() if k in given}


@pytest.mark.parametrize("method", METHODS)
def test_the_command_shown_does_what_the_form_does(method: str, workspace: Workspace):
    run = drafts.build(filled(method, workspace, **{"loop.steps": 17, "optim.lr": 3e-4}), workspace)
    words = shlex.split(drafts.command(run))
    again, _ = flags.parse_run(method, words[3:])
    assert serial.differences(run.to_dict(), again.to_dict()) == []


@pytest.mark.parametrize(
    ("model", "rate", "batch"), [("sdxl", 1e-4, 4), ("sd15", 1e-4, 1), ("sd35", 4e-4, 4)]
)
def test_another_model_takes_the_preset_that_suits_it_and_keeps_what_was_typed(model, rate, batch, workspace):
    values = serial.merge(
        filled("dreambooth", workspace), {"method": {"model": model}, "loop": {"steps": 17}}
    )
    fitting = drafts.suited("dreambooth", values)
    assert (fitting["optim"]["lr"], fitting["loop"]["batch_size"]) == (rate, batch)
    assert (fitting["loop"]["steps"], fitting["method"]["model"]) == (17, model)
    run = drafts.build(fitting, workspace)
    assert run.preset == fitting["preset"] != values["preset"]
    text, kind = drafts.told(run)[0]
    assert (text.startswith(f"Preset: {run.preset}, since"), kind) == (True, "info")
    assert "--preset" not in drafts.command(run)


def test_all_weights_take_their_own_preset_and_a_chosen_one_stays_in_the_command(workspace):
    values = serial.merge(filled("dreambooth", workspace), {"method": {"adapter": {"kind": "full"}}})
    assert drafts.suited("dreambooth", values)["preset"] == "tiny-full"
    named = serial.merge(
        drafts.base("dreambooth", "full"), {"method": {"data": "photos", "kind": "dreambooth"}}
    )
    run = drafts.build(named, workspace)
    assert "--preset full" in drafts.command(run)


def test_a_warning_about_a_model_is_told_as_one(workspace: Workspace):
    run = drafts.build(filled("dreambooth", workspace, **{"method.model": "flux-schnell"}), workspace)
    assert [
        kind for _, kind in drafts.told(drafts.build(drafts.suited("dreambooth", run.to_dict()), workspace))
    ] == [
        "info",
        "warning",
    ]


def test_a_size_that_follows_stands_beside_the_one_that_the_form_shows(workspace: Workspace):
    held = filled("texforce", workspace, **{"loop.batch_size": 7})
    followed = drafts.followed(held, drafts.build(held, workspace))
    assert followed
    shown = {leaf.name: leaf for leaf in drafts.fields("texforce", held)}
    for name, value in followed.items():
        assert shown[name].beside(value).endswith(f"Follows the others: {value}.")
    assert shown["loop.batch_size"].beside(followed.get("loop.batch_size")) == shown["loop.batch_size"].info


@pytest.mark.parametrize("method", METHODS)
def test_the_simple_view_asks_for_prompts_where_they_are_needed(method: str):
    fields = drafts.fields(method, drafts.base(method, "auto"))
    shown = {leaf.name for leaf in drafts.simple(fields)}
    assert ("method.prompts" in shown) == any(leaf.name == "method.prompts" for leaf in fields)


def test_sizes_that_a_person_left_follow_the_one_that_was_changed(workspace: Workspace):
    run = drafts.build(filled("texforce", workspace, **{"loop.batch_size": 7}), workspace)
    assert (run.loop.batch_size, run.method.rollouts.images) == (7, 63)
    with pytest.raises(StudioError, match=r"choose rollouts.images 12 with loop.batch_size 4"):
        drafts.build(
            filled("texforce", workspace, **{"loop.batch_size": 4, "method.rollouts.images": 10}), workspace
        )


def test_every_field_has_help_and_a_label():
    fields = drafts.fields("dreambooth", drafts.base("dreambooth", "auto"))
    silent = [leaf.name for leaf in fields if not leaf.help]
    assert [name for name in silent if name.startswith("method.") and name.count(".") == 1] == []
    assert {leaf.name: leaf.label for leaf in fields}["optim.lr"] == "Learning rate"


def test_bounds_and_choices_come_from_the_class():
    fields = {leaf.name: leaf for leaf in drafts.fields("dreambooth", drafts.base("dreambooth", "auto"))}
    assert fields["loop.steps"].bounds == "≥ 1"
    assert fields["optim.ema"].bounds == "≥ 0 < 1"
    assert fields["method.adapter.kind"].schema["enum"][0] == "lora"
    assert isinstance(forms.draw(fields["method.images.on_bad"]), gr.Radio)
    assert isinstance(forms.draw(fields["hardware.precision"]), gr.Dropdown)


def test_another_alternative_brings_its_own_fields():
    values = serial.merge(drafts.base("dreambooth", "auto"), {"method": {"adapter": {"kind": "full"}}})
    names = {leaf.name for leaf in drafts.fields("dreambooth", values)}
    assert "method.adapter.rank" not in names


def test_the_simple_view_has_five_fields():
    for method in METHODS:
        fields = drafts.fields(method, drafts.base(method, "auto"))
        assert len(drafts.simple(fields)) == 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loop.steps": 0}, "greater than or equal to 1"),
        ({"method.data": ""}, "Data is missing"),
        ({"method.data": "nowhere"}, "'nowhere' does not exist"),
        ({"method.data": "/etc"}, "outside of the allowed folder"),
        ({"method.data": "../elsewhere"}, "outside of the allowed folder"),
        ({"method.held_out": "~/photos"}, "outside of the allowed folder"),
        ({"optim.name": "os.system"}, "would run code"),
        ({"optim.name": "mine:Slow"}, "would run code"),
        ({"method.adapter": {"kind": "custom", "path": "mine:few"}}, "would run code"),
        ({"method.model": "mine.py:load"}, "would run code"),
        ({"method.model": "sdlx"}, "did you mean 'sdxl'"),
        ({"method.model": "photos"}, "no model_index.json"),
        ({"method.denoising.error": {"kind": "custom", "path": "mine:huber"}}, "would run code"),
        ({"name": "../up"}, "outside of the allowed folder"),
        ({"name": "a/b"}, "plain name without a slash"),
        ({"method.nonsense": 1}, "Unknown setting"),
    ],
)  # fmt: skip
def test_wrong_settings_are_refused_with_a_sentence(change: dict, message: str, workspace: Workspace):
    values = serial.merge(filled("dreambooth", workspace), serial.nest(change))
    with pytest.raises(StudioError, match=message):
        drafts.build(values, workspace)


def test_a_term_of_a_mix_and_an_attack_of_ones_own_are_refused(workspace: Workspace):
    for values in (
        {"reward": {"kind": "mix", "weights": {"mine:smile": 1.0}}},
        {"attacks": {"custom": ["mine:push"]}},
    ):
        with pytest.raises(StudioError, match="would run code"):
            workspace.check(values, {})
    workspace.check({"attacks": {"custom": []}}, {})


def test_a_link_out_of_the_workspace_is_refused(workspace: Workspace):
    (workspace.root / "way-out").symlink_to("/etc")
    values = serial.merge(filled("dreambooth", workspace), {"method": {"data": "way-out"}})
    with pytest.raises(StudioError, match="outside of the allowed folder"):
        drafts.build(values, workspace)


def test_a_list_that_cannot_be_read_names_its_field():
    leaf = next(each for each in forms.leaves(Run, {"method": {}}) if each.name == "optim.betas")
    with pytest.raises(StudioError, match="write a list as"):
        forms.parse(leaf, "[0.9, ")
