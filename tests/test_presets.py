"""Presets are chosen by what a model is: every family by name, hub name, folder; what moves; what is said and recorded."""

import json
from pathlib import Path

import pytest

from studio.catalog import drawing, families, methods, presets, traits
from studio.catalog.run import Run
from studio.catalog.suits import Suits, Traits
from studio.errors import StudioError
from studio.flags import flags
from studio.settings import serial
from studio.settings.sampling import SampleRequest
from tests import presets as page

PUBLISHED = Path(__file__).resolve().parents[2] / "shared" / "published"
VARIANTS = [variant for _, variant in families.variants()]
DREAMBOOTH = {
    "sd1": ("unet-lora", "full"), "sd2": ("unet-lora", "full"), "sdxl": ("sdxl-lora", "sdxl-full"),
    "sd3": ("sd3-lora", "sd3-full"), "flux": ("flux-lora", "flux-full"),
}  # fmt: skip


def chosen(method: str, model: str, **own: object) -> presets.Choice:
    return presets.choose(methods.card(method), {"model": model, **own})


def folder(variant, path: Path) -> str:
    """A diffusers folder with a model's settings, without weights."""
    card = next(card for card, one in families.variants() if one is variant)
    index = {name: [part.library, part.cls] for name, part in variant.architecture.items()}
    told = {key.removeprefix("index."): v for key, v in variant.tells.items() if key.startswith("index.")}
    path.mkdir(exist_ok=True)
    (path / "model_index.json").write_text(json.dumps({"_class_name": card.pipeline, **index, **told}))
    for name, part in variant.architecture.items():
        file = "scheduler_config.json" if name == "scheduler" else "config.json"
        (path / name).mkdir()
        tells = {**card.recognize.tells, **variant.tells}.items()
        own = {key.removeprefix(f"{name}."): value for key, value in tells if key.startswith(f"{name}.")}
        (path / name / file).write_text(json.dumps({"_class_name": part.cls, **part.config, **own}))
    return str(path)


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)
def test_a_family_has_the_same_preset_by_every_name_and_as_a_folder(variant, tmp_path):
    names = [variant.name, variant.hub, *variant.also, folder(variant, tmp_path / "my-model")]
    found = {chosen("dreambooth", name).name for name in names}
    assert len(found) == 1
    assert found != {presets.NONE}
    assert all(chosen("dreambooth", name).why.count(variant.title) >= 1 for name in names)


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)
def test_a_published_folder_is_told(variant):
    found = list(PUBLISHED.glob(f"*/{variant.hub.rpartition('/')[2]}"))
    if not found:
        pytest.skip("its files are not here")
    assert chosen("dreambooth", str(found[0])).name == chosen("dreambooth", variant.name).name


@pytest.mark.parametrize("family", DREAMBOOTH)
def test_an_adapter_and_all_weights_take_different_presets(family):
    name = families.cards()[family].variants[0].name
    assert (
        chosen("dreambooth", name).name,
        chosen("dreambooth", name, adapter={"kind": "full"}).name,
    ) == DREAMBOOTH[family]


@pytest.mark.parametrize(
    ("method", "flags_", "rate", "batch"),
    [
        ("dreambooth", ["--data", ".", "--model", "sdxl"], 1e-4, 4),
        ("dreambooth", ["--data", ".", "--model", "sd35"], 4e-4, 4),
        ("dreambooth", ["--data", ".", "--model", "sd15", "--adapter", "full"], 5e-6, 1),
        ("dreambooth", ["--data", ".", "--adapter", "full"], 1e-4, 8),
        ("dreambooth", ["--data", ".", "--adapter", "oft"], 1e-3, 8),
        ("jedi", ["--model", "sd15"], 1e-5, 32),
        ("jedi", ["--model", "sd15", "--adapter=lora"], 1e-4, 32),
        ("ip_adapter", ["--model", "sdxl"], 1e-4, 64),
        ("ip_adapter", ["--model", "sdxl", "--projection", "plus"], 1e-4, 64),
        ("oft", ["--model", "sd15"], 1e-5, 16),
        ("texforce", ["--model", "sdxl", "--prompts", "a"], 3e-4, 8),
        ("texforce", ["--model", "sd35", "--prompts", "a"], 3e-4, 64),
        ("textual_inversion", ["--data", ".", "--model", "sdxl"], 2e-3, 4),
        ("vit", ["--model", "resnet50.a1_in1k"], 5e-5, 512),
        ("vit", ["--model", "deit_tiny_patch16_224", "--tuning", "linear-probe"], 5e-2, 128),
        ("clip", ["--model", "ViT-B-32", "--tuning", "coop"], 2e-3, 32),
        ("vlm", ["--data", "a.json"], 2e-4, 16),
        ("vlm", ["--data", "a.json", "--adapter", "full"], 1e-5, 16),
    ],
)
def test_flags_choose_the_preset(method, flags_, rate, batch):
    run, start = flags.started(method, flags_)
    assert (run.optim.lr, run.loop.batch_size) == (rate, batch)
    assert run.preset == start.preset != ""
    assert methods.card(method).presets[start.preset].note in start.choice.why


def trained(path: Path, model: str) -> str:
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps({"method": {"kind": "vit", "model": model}}))
    (path / "events.jsonl").touch()
    return str(path)


def test_a_run_stands_for_the_model_that_it_started_from(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = trained(tmp_path / "anywhere", "studio-tiny-vit")
    trained(tmp_path / "runs" / "second", first)
    assert chosen("arrest", "second").name == "tiny"
    assert chosen("arrest", trained(tmp_path / "third", "vit_base_patch16_224")).name == "vit"


def test_a_run_that_names_itself_ends_the_search(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trained(tmp_path / "one", "one")
    assert traits.started_from("one") == "one"


def test_without_a_fitting_preset_one_sentence_says_so():
    choice = chosen("dreambooth", "somebody/something")
    assert choice.name == presets.NONE
    (said,) = choice.warnings
    assert "no preset of dreambooth suits" in said
    assert "0.0001" in said
    assert "flow-lora" in said


def test_a_distilled_model_is_told_with_what_to_train_instead():
    (said,) = chosen("dreambooth", "flux-schnell").warnings
    assert "distilled to 4 steps" in said
    assert "train flux-dev instead" in said


def test_a_preset_is_taken_by_its_name_and_none_takes_none():
    asked = ["--data", ".", "--model", "sdxl"]
    assert flags.started("dreambooth", [*asked, "--preset", "flow-lora"])[1].choice.why.startswith(
        "flow-lora, as asked"
    )
    run, start = flags.started("dreambooth", [*asked, "--preset", "none"])
    assert (start.preset, run.preset, run.loop.steps) == ("", "none", 1000)
    with pytest.raises(StudioError, match="preset"):
        flags.started("dreambooth", [*asked, "--preset", "flow-laro"])


def test_the_preset_is_recorded_and_the_record_gives_the_same_run(tmp_path):
    run = Run.of("dreambooth", data=".", model="sdxl")
    assert run.preset == "sdxl-lora"
    (tmp_path / "config.json").write_text(json.dumps(run.to_dict()))
    again, start = flags.started("dreambooth", ["--config", str(tmp_path / "config.json")])
    assert again == run
    assert start.preset == "sdxl-lora"


@pytest.mark.parametrize("method", [name for name in methods.ours() if methods.card(name).trainer])
def test_every_preset_says_its_source_holds_settings_and_names_families_that_there_are(method):
    card = methods.card(method)
    for name, preset in card.presets.items():
        assert preset.note, name
        assert set((preset.suits or Suits()).families) <= set(families.cards()), name
        values = presets.values_of(card, name)
        own = {"data": "x", "kind": method, **values.pop("method", {})}
        kept = {
            key: value for key, value in own.items() if key != "data" or "data" in serial.hints(card.config)
        }
        if isinstance(kept.get("data"), str) and serial.members(serial.hints(card.config)["data"]):
            del kept["data"]
        Run.from_dict({**values, "method": kept})


@pytest.mark.parametrize("method", page.drawing_methods())
@pytest.mark.parametrize("family", families.cards())
def test_every_method_has_a_preset_for_every_family_that_it_accepts(method, family):
    if method == "flow_grpo" and families.cards()[family].process != "flow":
        return
    variant = families.cards()[family].variants[0]
    assert chosen(method, variant.name).name != presets.NONE
    assert chosen(method, f"tiny:{family}").name != presets.NONE


def test_all_that_is_said_of_a_preset_must_hold():
    flux = Traits(
        name="x", family="flux", process="flow", billions=11.9, chosen=frozenset({"lora", "adapter"})
    )
    assert Suits(families=("flux",), billions=11, chosen=("adapter",), small=False, distilled=False).fits(
        flux
    )
    assert not Suits(billions=12).fits(flux)
    assert not Suits(chosen=("whole",)).fits(flux)
    assert not Suits(small=True).fits(flux)
    assert not Suits(process="discrete").fits(flux)
    assert not Suits(networks=("vit",)).fits(flux)
    assert not Suits(fresh=True).fits(flux)
    assert not Suits(distilled=True).fits(flux)
    assert not Suits(names=("y*",)).fits(flux)


@pytest.mark.parametrize(
    ("model", "steps", "guidance"),
    [("flux-schnell", 4, 1.0), ("flux-dev", 28, 3.5), ("sdxl", 30, 5.0), ("klein-4b", 4, 1.0), ("z-image", 50, 5.0), ("studio-tiny", 20, 4.0), ("a/b", 20, 4.0)],
)  # fmt: skip
def test_pictures_are_drawn_with_what_the_card_of_the_model_says(model, steps, guidance):
    variant = traits.variant_of(model)
    asked = SampleRequest(prompt=("a",))
    assert drawing.steps_of(asked.steps, variant) == steps
    assert drawing.guidance_of(asked.guidance, variant) == guidance
    run = Run.of("dreambooth", data=".", model=model, preset="none")
    assert drawing.steps_of(run.preview.steps, variant) == steps
    assert drawing.guidance_of(run.preview.guidance, variant) == guidance
    assert (drawing.steps_of(7, variant), drawing.guidance_of(0.0, variant)) == (7, 0.0)


def test_the_page_of_presets_is_as_the_cards_have_them():
    assert page.FILE.read_text(encoding="utf-8") == page.render(), "python -m tests.presets writes it"


@pytest.mark.parametrize(("method", "given", "names"), page.BY_NAME)
def test_no_real_name_of_a_vision_or_chat_model_is_left_to_the_method_s_defaults(method, given, names):
    for name in names:
        choice = chosen(method, name, **dict([given] if given else []))
        assert choice.name not in (presets.NONE, "tiny"), name
        assert presets.values_of(methods.card(method), choice.name)["optim"]["schedule"] == "cosine", name


@pytest.mark.parametrize(
    ("method", "kind"), [("vit", "linear-probe"), ("vit", "lp-ft"), ("vit", "adapt-former"), ("clip", "probe"), ("clip", "lp-ft")]
)  # fmt: skip
def test_a_head_never_learns_at_the_rate_of_all_weights(method, kind):
    model = {"vit": "vit_base_patch16_224.augreg_in21k", "clip": "ViT-B-16"}[method]
    run, _ = flags.started(method, ["--tuning", kind, "--model", model])
    scale = getattr(run.method.tuning, "head_lr_scale", getattr(run.method, "head_lr_scale", 1.0))
    assert run.optim.lr * scale >= 1e-3


def test_cola_has_a_preset_for_published_clips():
    assert chosen("cola", "studio-tiny-clip").name == "tiny"
    choice = chosen("cola", "ViT-B-32")
    assert (choice.name, choice.warnings) == ("clip", ())
    run, _ = flags.started("cola", ["--model", "ViT-B-32"])
    assert (run.optim.lr, run.loop.batch_size) == (1e-4, 32)
