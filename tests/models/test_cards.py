"""Every card states what the published files say."""

import inspect
import json
import math
import struct
from pathlib import Path

import diffusers
import pytest
import torch
import transformers

from studio.catalog import families, methods, presets
from studio.catalog.known import Known
from studio.catalog.recognize import recognize
from studio.errors import StudioError
from studio.flags import flags
from studio.models.architecture import component, modules
from studio.settings.sampling import Parts

PUBLISHED = Path(__file__).resolve().parents[3] / "shared" / "published"
"""The models' own files, where they lie beside the project."""
VARIANTS = {variant.name: (card, variant) for card, variant in families.variants()}
ASIDE = (
    "_name_or_path",
    "_class_name",
    "_diffusers_version",
    "transformers_version",
    "dtype",
    "torch_dtype",
    "architectures",
)
"""What a file says about itself and not about the model."""
OPTIONAL = {"add_k_proj", "add_v_proj", "attn2.to_q", "attn2.to_k", "attn2.to_v", "attn2.to_out.0"}
"""Layers that only some models of a family have."""


def folder_of(variant):
    name = variant.hub.split("/")[1]
    return next((found for found in PUBLISHED.glob(f"*/{name}") if found.is_dir()), None)


def whole(part, config):
    """Settings with the defaults of their class, as plain values."""
    if part.library == "transformers":
        kind = getattr(transformers, part.cls).config_class
        filled = kept(kind(**config).to_dict(), kind().to_dict())
    else:
        filled = accepted(part) | config
    return without_asides(json.loads(json.dumps(filled, default=str)))


def without_asides(settings):
    """Settings, and those inside them, without what a file says about itself."""
    return {
        key: without_asides(value) if isinstance(value, dict) else value
        for key, value in settings.items()
        if key not in ASIDE
    }


def kept(settings, known):
    """Settings that a class knows; others it carries along unread."""
    return {
        key: kept(value, known[key]) if isinstance(value, dict) and isinstance(known[key], dict) else value
        for key, value in settings.items()
        if key in known
    }


def accepted(part):
    parameters = inspect.signature(getattr(diffusers, part.cls).__init__).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="the published files are not here")
@pytest.mark.parametrize("name", VARIANTS)
def test_the_architecture_is_the_published_one(name):
    _, variant = VARIANTS[name]
    folder = folder_of(variant)
    assert folder, f"no published files of {variant.hub}"
    for key, part in variant.architecture.items():
        file = folder / key / ("scheduler_config.json" if key == "scheduler" else "config.json")
        theirs = json.loads(file.read_text())
        if part.library == "diffusers":
            assert theirs["_class_name"] == part.cls
            theirs = {k: v for k, v in theirs.items() if k in accepted(part)}
        assert whole(part, dict(part.config)) == whole(part, theirs), key


@pytest.mark.parametrize("name", VARIANTS)
def test_the_architecture_builds_with_the_published_number_of_weights(name):
    card, variant = VARIANTS[name]
    with torch.device("meta"):
        found = {key: sum(p.numel() for p in module.parameters()) for key, module in modules(variant).items()}
    assert all(found.values())
    assert found[card.denoiser] == (variant.weights or found[card.denoiser])


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="the published files are not here")
def test_every_exact_published_number_of_weights_is_on_a_card():
    rows = [line.split("\t") for line in (PUBLISHED / "COUNTS.tsv").read_text().splitlines()[1:]]
    exact = {
        row[0].split("/")[-1]: int(row[5])
        for row in rows
        if row[1] in ("unet", "transformer") and row[6:7] == ["equal"]
    }
    stated = {variant.hub.split("/")[1]: variant.weights for _, variant in VARIANTS.values()}
    assert {hub: stated[hub] for hub in exact.keys() & stated.keys()} == {
        hub: exact[hub] for hub in exact.keys() & stated.keys()
    }


@pytest.mark.parametrize("card", families.cards().values(), ids=lambda card: card.name)
def test_a_card_is_complete(card):
    """What another part of the studio would stumble over later."""
    assert card.title
    assert card.recognize.pipelines
    assert card.layers.auto
    assert card.layers.entry
    assert card.layers.stacks
    assert card.names.modelspec
    assert card.names.base_version
    assert card.names.network
    assert set(card.names.text) <= set(card.words.trains)
    assert set(card.words.trains) <= set(card.variants[0].architecture)
    assert (card.names.scheme == "blocks") == bool(card.names.blocks)
    for variant in card.variants:
        assert variant.license, variant.name
        assert {card.denoiser, "vae", "scheduler"} <= set(variant.architecture)
        assert not variant.distilled or variant.instead or variant.assistant, variant.name
        assert not variant.instead or families.by_name(variant.instead), variant.name


@pytest.mark.parametrize("card", families.cards().values(), ids=lambda card: card.name)
def test_the_layers_on_a_card_are_layers_of_its_published_denoisers(card):
    for variant in card.variants:
        with torch.device("meta"):
            denoiser = component(variant.architecture[card.denoiser])
        names = dict(denoiser.named_modules())
        ends = {f".{name}" for name in names}
        assert card.layers.entry in names
        for layer in (*card.layers.auto, *card.layers.more):
            assert any(end.endswith(f".{layer}") for end in ends) or layer in OPTIONAL, layer
        for stack in card.layers.stacks:
            assert stack in names
        for blocks, (_, table) in card.names.blocks.items():
            inside = {
                name.removeprefix(f"{blocks}.").split(".", 1)[1]
                for name in names
                if name.startswith(f"{blocks}.") and "." in name.removeprefix(f"{blocks}.")
            }
            missing = {layer for ours in table.values() for layer in ours} - inside
            assert missing <= OPTIONAL, (blocks, missing)


def test_short_names_are_unique():
    names = [
        name for _, variant in families.variants() for name in (variant.name, variant.hub, *variant.also)
    ]
    assert sorted(names) == sorted(set(names))


@pytest.mark.parametrize("name", VARIANTS)
def test_a_denoiser_in_one_file_is_told_by_its_keys_and_name(name, tmp_path):
    """Kontext and Qwen-Image-Edit have their bases' keys: only a folder, or `--parts.variant`, says so."""
    card, variant = VARIANTS[name]
    with torch.device("meta"):
        denoiser = component(variant.architecture[card.denoiser])
    file = tmp_path / f"{variant.hub.split('/')[1]}.safetensors"
    empty_file(file, {key: list(value.shape) for key, value in denoiser.state_dict().items()})
    found = recognize(str(file))
    same = {"flux-kontext-dev": "flux-dev", "qwen-image-edit": "qwen-image"}
    assert found.variant, found.refusal
    assert found.variant.name == same.get(name, name)
    assert not found.refusal


def test_a_guess_is_recorded_with_the_setting_that_changes_it(tmp_path):
    """Z-Image and its Turbo have the same keys: what a run's start says of its model."""
    card, variant = VARIANTS["z-image"]
    with torch.device("meta"):
        denoiser = component(variant.architecture[card.denoiser])
    file = tmp_path / "z_image_turbo_bf16.safetensors"
    empty_file(file, {key: list(value.shape) for key, value in denoiser.state_dict().items()})
    method = methods.card("dreambooth")
    guessed = presets.taken_for(method, {"model": str(file)})
    assert guessed == (
        "Z-Image-Turbo (z-image-turbo), a guess: the keys and shapes in its header fit z-image too; "
        "--parts.variant says which it is"
    )
    told = presets.taken_for(method, {"model": str(file), "parts": {"variant": "z-image"}})
    assert told == "Z-Image (z-image), told by the keys and shapes in its header; the variant as given"
    given = {"model": str(file), "parts": {"variant": "z-image"}}
    assert presets.choose(method, {"model": str(file)}).warnings
    assert not presets.choose(method, given).warnings
    argv = ["--data", ".", "--model", str(file)]
    assert flags.started("dreambooth", argv)[1].choice.warnings
    assert not flags.started("dreambooth", [*argv, "--parts.variant", "z-image"])[1].choice.warnings
    with pytest.raises(StudioError, match="Unknown variant"):
        flags.started("dreambooth", [*argv, "--parts.variant", "sdxl"])
    assert presets.taken_for(method, {"model": "sdxl"}).endswith("(sdxl), told by its name")
    assert presets.taken_for(method, {"model": "tiny:sd1"}) == ""


def empty_file(file, shapes):
    """A safetensors file with a header for tensors of these shapes, and no bytes on disk behind it."""
    header, end = {}, 0
    for key, shape in shapes.items():
        size = 2 * math.prod(shape)
        header[key] = {"dtype": "BF16", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    told = json.dumps(header).encode()
    with file.open("wb") as opened:
        opened.write(struct.pack("<Q", len(told)) + told)
        opened.truncate(8 + len(told) + end)


@pytest.mark.parametrize(
    ("name", "base"), [("flux-kontext-dev", "flux-dev"), ("qwen-image-edit", "qwen-image")]
)
def test_what_its_keys_do_not_tell_a_person_does(name, base):
    _, variant = VARIANTS[name]
    known = Known("file", *VARIANTS[base], "its keys")
    found = known.told(Parts(variant=name))
    assert (found.card, found.variant) == VARIANTS[name]
    with pytest.raises(StudioError, match=f"{variant.name}"):
        known.told(Parts(variant="sdxl"))
