"""What a folder is that was given as a model: a diffusers pipeline and what is wrong with it, or something else. No torch."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from studio.catalog import component_settings, families, header, run_folder, single_file
from studio.catalog.component_settings import settings_file, values
from studio.catalog.family import FamilyCard, Part, Variant
from studio.catalog.known import Known
from studio.catalog.noise import refused, said
from studio.errors import StudioError, unknown

NOT_NEEDED = ("safety_checker", "feature_extractor", "image_encoder")
"""Parts of published pipelines that drawing does without."""
WEIGHTS = re.compile(
    r"^(?:model|diffusion_pytorch_model)(?:\.(?P<before>\w+))?(?:-\d+-of-\d+)?(?:\.(?P<after>\w+))?\.safetensors$"
)
"""Names of weight files; a variant stands before or after the number of a shard."""
_VOCABULARIES = ("tokenizer.json", "vocab.txt", "spiece.model", "tokenizer.model", "tekken.json")
_LORAS = ("adapter_config.json", "adapter_model.safetensors", "pytorch_lora_weights.safetensors")


def of_folder(given: Path) -> Known:
    """What a folder is: never an error, but a `refusal` where it is no model or a broken one."""
    folder = _snapshot(given)
    known = Known("folder", path=folder, why="its model_index.json and settings")
    if not (folder / "model_index.json").is_file():
        if run_folder.is_run(folder):
            return _of_run(folder)
        return replace(known, refusal=_no_index(folder))
    index = values(folder / "model_index.json")
    kind = index.get("_class_name")
    if not isinstance(kind, str):
        broken = (
            f"{folder}/model_index.json is broken: it names no kind of pipeline; copy or download it again."
        )
        return replace(known, refusal=broken)
    cards = families.of_pipeline(kind)
    if not cards:
        error = unknown(f"kind of pipeline in {folder}", kind, families.pipelines())
        return replace(known, refusal=str(error))
    card = next((c for c in cards if _all_agree(folder, index, c.variants[0], c.recognize.tells)), None)
    if card is None:
        return replace(known, refusal=_between(folder, kind, cards))
    fits = [variant for variant in card.variants if _all_agree(folder, index, variant, variant.tells)]
    others = tuple(variant.name for variant in fits[1:])
    known = replace(known, card=card, variant=fits[0] if fits else None, others=others)
    if not known.sure:
        known = replace(known, notes=(f"{folder} is taken for {known.taken_for}.",))
    return _examined(known, folder, index)


def _of_run(run: Path) -> Known:
    """What a run is as a model: the one whole model that it exported, else a `refusal` that says what it is for."""
    found = run_folder.whole(run)
    if len(found) == 1:
        known = of_folder(found[0])
        return replace(known, why=f"{known.why}, as the run {run} exported it")
    if found:
        listed = ", ".join(str(path) for path in found)
        refusal = (
            f"{run} is a run that exported {len(found)} whole models; give one of them to --model: {listed}."
        )
        return Known("folder", path=run, refusal=refusal)
    base = run_folder.before(run) or "its base model"
    refusal = (
        f"{run} is a run that exported no whole model; give it to --artifact to draw with it, or to --start to train on, "
        f"and the model that it was trained on ({base}) to --model."
    )
    return Known("folder", path=run, refusal=refusal)


def family_of(folder: Path) -> Known | None:
    """What is known of a folder of settings alone, as it may lie beside a file; None where there is none."""
    found = of_folder(folder) if (folder / "model_index.json").is_file() else None
    return found if found and found.card else None


def _snapshot(folder: Path) -> Path:
    """The files of a hub model's cache folder (`models--owner--name`); the folder itself if it is none."""
    if not folder.name.startswith("models--") or not (folder / "snapshots").is_dir():
        return folder
    main = folder / "refs" / "main"
    named = folder / "snapshots" / main.read_text().strip() if main.is_file() else folder
    newest = sorted(folder.glob("snapshots/*"), key=lambda each: each.stat().st_mtime)
    return named if named.is_dir() and named != folder else (newest or [folder])[-1]


def _no_index(folder: Path) -> str:
    """What a folder without an index is, and what to do."""
    if any((folder / name).is_file() for name in _LORAS):
        return (
            f"{folder} holds a LoRA or another adapter; give it to --artifact, and its base model to --model."
        )
    if (folder / "config.json").is_file() and "_class_name" in (own := values(folder / "config.json")):
        return (
            f"{folder} is one part of a model ({own['_class_name']}); give the folder above it, which has "
            "model_index.json, or an autoencoder to --parts.vae."
        )
    files = sorted(file.name for file in folder.glob("*.safetensors"))
    hint = f" such as {folder / files[0]}" if files else ""
    return (
        f"{folder} has no model_index.json, so it is not a diffusers model folder; give one that "
        f"`save_pretrained` wrote, or a .safetensors checkpoint{hint}."
    )


def _between(folder: Path, kind: str, cards: list[FamilyCard]) -> str:
    told = " or ".join(
        f"{card.title} ({', '.join(f'{name} {value}' for name, value in card.recognize.tells.items())})"
        for card in cards
    )
    return f"{folder} is a {kind} of no known family; its settings would have to say {told}."


def _examined(known: Known, folder: Path, index: Mapping[str, Any]) -> Known:
    """A pipeline's parts, and what is wrong with them."""
    card = known.card
    if card is None:
        return known
    listed = {part: value for part, value in index.items() if _is_part(value) and part not in NOT_NEEDED}
    networks = [part for part in listed if part in (card.denoiser, "vae") or part.startswith("text_encoder")]
    wanted = [p for p in card.variants[0].architecture if p not in card.recognize.optional]
    scheduler = values(folder / "scheduler" / "scheduler_config.json")
    denoiser = values(folder / card.denoiser / "config.json")
    try:
        variants = {_weights(folder, part) for part in networks}
        refusals = [
            *(f"it lists no {part}" for part in wanted if part not in listed),
            *(component_settings.refusal(folder, part, library) for part, (library, _) in listed.items()),
            *(_words(folder / part) for part in listed if part.startswith("tokenizer")),
        ]
    except StudioError as error:
        return replace(known, refusal=str(error))
    reason = next(filter(None, refusals), "")
    kind, zero_snr = said(card, scheduler)
    return replace(
        known,
        prediction=kind,
        zero_snr=zero_snr,
        starts=dict.fromkeys(networks, ""),
        weights=next(filter(None, variants), ""),
        refusal=f"The model {folder} cannot be loaded: {reason}; copy or download it again."
        if reason
        else refused(folder, card, scheduler) or _denoiser(folder, card, denoiser),
    )


def _is_part(value: object) -> bool:
    """Whether an entry of an index is a component, library and class: not one that is absent, nor a setting that is a list."""
    return isinstance(value, list) and len(value) == 2 and all(isinstance(one, str) for one in value)


def _weights(folder: Path, part: str) -> str:
    """What the names of a part's weight files have before their ending; empty for plain names.

    Raises:
        StudioError: There are none, or one is not whole.
    """
    files = {file: match for file in (folder / part).glob("*") if (match := WEIGHTS.match(file.name))}
    found = {file: match["before"] or match["after"] or "" for file, match in files.items()}
    if not found:
        pickles = any((folder / part).glob("*.bin"))
        raise StudioError(
            f"{folder}/{part} has its weights in pickles (.bin) alone, which can run code when read; give a copy with "
            ".safetensors files, or convert it."
            if pickles
            else f"The model {folder} cannot be loaded: {part} has no weights (.safetensors); copy or download it again.",
            field="model",
        )
    chosen = "" if "" in found.values() else min(found.values())
    for file, variant in found.items():
        if variant == chosen:
            header.read(file)
    return chosen


def _words(folder: Path) -> str:
    """Why a tokenizer cannot be read: without its vocabulary it would take every prompt for the same."""
    merged = (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file()
    if merged or any((folder / name).is_file() for name in _VOCABULARIES):
        return ""
    return f"{folder.name} has no vocabulary ({', '.join(_VOCABULARIES)}, or vocab.json with merges.txt)"


def _denoiser(folder: Path, card: FamilyCard, own: Mapping[str, Any]) -> str:
    """Why a denoiser that takes more than the noisy latent and the time is refused."""
    latent = values(folder / "vae" / "config.json").get("latent_channels", 4)
    if card.denoiser == "unet" and own.get("in_channels", 4) != latent:
        return single_file.wider(folder, card, own["in_channels"], latent)
    if own.get("time_cond_proj_dim"):
        return (
            f"{folder} has a U-Net that reads the guidance scale (time_cond_proj_dim, as LCM has it), which no family "
            "here gives; give the model that it was distilled from."
        )
    return ""


def _all_agree(folder: Path, index: Mapping[str, Any], variant: Variant, tells: Mapping[str, Any]) -> bool:
    return all(_agrees(folder, index, variant, *told) for told in tells.items())


def _agrees(folder: Path, index: Mapping[str, Any], variant: Variant, name: str, wanted: object) -> bool:
    """Whether a setting of a folder, or of its class where the folder leaves it out, is the wanted one."""
    component, _, setting = name.partition(".")
    if component == "index":
        return index.get(setting, False) == wanted
    found = values(folder / component / settings_file(component))
    left_out = variant.architecture.get(component, Part("")).config.get(setting) if not found else None
    return found.get(setting, left_out) == wanted


def components(folder: Path) -> Iterator[tuple[str, Part]]:
    """The parts of a folder of settings, with all that their files say."""
    for name, listed in values(folder / "model_index.json").items():
        file = folder / name / settings_file(name)
        if _is_part(listed) and name.isidentifier() and file.is_file() and name not in NOT_NEEDED:
            library, cls = listed
            own = {key: value for key, value in values(file).items() if not key.startswith("_")}
            yield name, Part(cls, own, "diffusers" if library == "diffusers" else "transformers")
