"""What a checkpoint in one file is, told by the names, shapes and metadata in its header. No torch."""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from studio.catalog import families, header
from studio.catalog.family import FamilyCard, Variant
from studio.catalog.header import Header
from studio.catalog.known import Kinds, Known
from studio.errors import StudioError

DENOISER = ("model.diffusion_model.", "")
"""Starts of a denoiser's keys: in a whole model, and alone."""
AUTOENCODER = ("first_stage_model.", "vae.")
_ADAPTER = re.compile(r"lora_|\.lora|hada_w|lokr_|\.oft_|dora_scale|^ip_adapter\.|^image_proj\.|^emb_params$")
_QUANTIZED = re.compile(
    r"\.(scale_weight|weight_scale|weight_scale_inv|absmax|quant_map|qweight|comfy_quant)$|^scaled_fp8$"
)
_SHARD = re.compile(r"-\d{5}-of-\d{5}$")
_ALSO: Mapping[str, str] = {
    "edm_mean": "Playground 2.5, trained on EDM noise levels",
    "edm_vpred.sigma_max": "a model that predicts v on EDM noise levels",
    "input_blocks.1.0.time_mixer.mix_factor": "Stable Video Diffusion",
    "down_blocks.0.motion_modules.0.temporal_transformer.norm.weight": "a motion module (AnimateDiff)",
    "controlnet_cond_embedding.conv_in.weight": "a ControlNet",
    "control_model.time_embed.0.weight": "a ControlNet",
}
"""Keys of models that have a family's layers and more, and what they are."""
_OTHERS: Mapping[str, str] = {
    "conditioner.embedders.0.model.ln_final.weight": "the SDXL refiner, which finishes pictures of SDXL",
    "joint_transformer_blocks.0.attn.add_q_proj.weight": "AuraFlow",
    "double_layers.0.attn.w1q.weight": "AuraFlow",
    "clip_txt_mapper.weight": "Stable Cascade",
    "head.modulation": "Wan, a video model",
    "patchify_proj.weight": "LTX-Video",
    "txt_in.individual_token_refiner.blocks.0.adaLN_modulation.1.bias": "HunyuanVideo",
    "cap_embedder.0.weight": "Lumina 2",
    "blocks.0.cross_attn.q_linear.weight": "Sana or PixArt",
    "net.x_embedder.proj.1.weight": "Cosmos",
}
"""Keys of models of other kinds, and what they are."""
_PREDICTIONS: Mapping[str, Kinds] = {
    "epsilon": "epsilon",
    "eps": "epsilon",
    "v": "v_prediction",
    "v_prediction": "v_prediction",
}


def of_file(file: Path, settings: Known | None = None) -> Known:
    """What a checkpoint is.

    Args:
        file: A .safetensors file.
        settings: What is known of a folder of settings beside it, which then says family and variant.
    """
    try:
        found = header.read(file)
    except StudioError as error:
        return Known("file", path=file, refusal=str(error))
    known = Known("file", path=file, why="the keys and shapes in its header")
    if refusal := _no_model(file, found):
        return replace(known, refusal=refusal)
    prefix = next((start for start in DENOISER if start and found.has(start)), "")
    inside = {
        key.removeprefix(prefix): shape for key, shape in found.shapes.items() if key.startswith(prefix)
    }
    if settings and settings.card:
        known = replace(known, card=settings.card, variant=settings.variant, why="the folder beside it")
        return _parts(replace(known, prediction=settings.prediction), found, prefix)
    if also := next((title for key, title in _ALSO.items() if key in inside or key in found.shapes), ""):
        return replace(known, refusal=_other(file, also))
    fitting = [card for card in families.cards().values() if _fits(card, inside)]
    if not fitting:
        return replace(known, refusal=_unfamiliar(file, found, inside))
    card = next((card for card in fitting if not _takes_more(file, card, inside)), fitting[0])
    if refusal := _takes_more(file, card, inside):
        return replace(known, card=card, refusal=refusal)
    variant, others = _variant(card, inside, file)
    known = replace(known, card=card, variant=variant, others=others, notes=_guessed(file, variant, others))
    return _parts(_predicts(known, found), found, prefix)


def _no_model(file: Path, found: Header) -> str:
    """Why a file cannot be a model, whatever its family."""
    if _SHARD.search(file.stem):
        return f"{file} is one of several files of one network; give the folder that holds them all."
    if any(_ADAPTER.search(key) for key in found.shapes):
        return (
            f"{file} holds no U-Net or transformer but what was trained for one (a LoRA, an adapter or a word); "
            "give it to --artifact, and its base model to --model."
        )
    if any(_QUANTIZED.search(key) for key in found.shapes):
        return (
            f"{file} holds quantized weights with scales of their own; give the file of the same model in fp16, bf16 "
            "or plain fp8, and --hardware.quantize where memory is short."
        )
    return ""


def _fits(card: FamilyCard, inside: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether a denoiser has a family's keys, with its shapes where they matter."""
    known = card.recognize
    return any(key in inside for key in known.keys) and all(
        len(inside[key]) == len(shape)
        and all(b in (None, a) for a, b in zip(inside[key], shape, strict=True))
        for key, shape in known.shapes.items()
        if key in inside
    )


def _takes_more(file: Path, card: FamilyCard, inside: Mapping[str, tuple[int, ...]]) -> str:
    """Why a denoiser with a wider input is refused."""
    for key, channels in card.recognize.inputs.items():
        if key in inside and (taken := inside[key][1:2]) != (channels,):
            return wider(file, card, sum(taken), channels)
    return ""


def wider(place: Path, card: FamilyCard, channels: int, usual: int) -> str:
    """The sentence on a denoiser that takes more than the noisy latent."""
    return (
        f"{place} is a {card.title} with {channels} input channels where text-to-image has {usual}: one for inpainting, "
        "hints or edits of pictures; give the text-to-image model that it was made from."
    )


def _variant(
    card: FamilyCard, inside: Mapping[str, tuple[int, ...]], file: Path
) -> tuple[Variant, tuple[str, ...]]:
    """The published model of a denoiser, and the names of others where only the file's name speaks for it."""
    keyed = [variant for variant in card.variants if any(key in inside for key in variant.keys)]
    fits = keyed or [variant for variant in card.variants if not variant.keys] or list(card.variants)
    if len(fits) == 1:
        return fits[0], ()
    shared = set.intersection(*map(_words, fits))
    stem = set(re.findall(r"[a-z]+|\d+", file.stem.lower()))

    def score(variant: Variant) -> tuple[int, int]:
        own = _words(variant) - shared
        return len(own & stem), -len(own - stem)

    best = max(fits, key=score)
    return best, tuple(variant.name for variant in fits if variant is not best)


def _guessed(file: Path, variant: Variant, others: tuple[str, ...]) -> tuple[str, ...]:
    """What to tell where only the file's name speaks for a variant."""
    if not others:
        return ()
    said = f"--parts.variant says so, or another ({', '.join(others)})"
    return (f"{file.name} is taken for {variant.name}, by its name alone; {said}.",)


def _words(variant: Variant) -> set[str]:
    """Words and numbers in a variant's names."""
    return set(re.findall(r"[a-z]+|\d+", f"{variant.name} {variant.hub.split('/')[-1]}".lower()))


def _predicts(known: Known, found: Header) -> Known:
    """What the denoiser predicts: as the file says, else as the published model does."""
    if known.card is None or known.variant is None or known.card.process == "flow":
        return replace(known, prediction="flow")
    usual = known.variant.architecture["scheduler"].config.get("prediction_type", "epsilon")
    said = found.metadata.get("modelspec.prediction_type", "").lower()
    if said and said not in _PREDICTIONS:
        refusal = (
            f"{known.path} says that it predicts {said!r}; what can be used: epsilon, v (--parts.prediction)."
        )
        return replace(known, refusal=refusal)
    kind: Kinds = "v_prediction" if "v_pred" in found.shapes else _PREDICTIONS.get(said, usual)
    side = re.match(r"\d{1,4}(?!\d)", found.metadata.get("modelspec.resolution", ""))
    notes = known.notes
    if kind != usual:
        notes += (f"{known.path} says that it predicts {kind}, where {known.variant.name} predicts {usual}.",)
    elif usual != "epsilon" and not said:
        assumed = (
            f"{kind} is assumed, as {known.variant.name} does; --parts.prediction epsilon says otherwise"
        )
        notes += (f"{known.path} does not say what it predicts: {assumed}.",)
    pixels = int(side[0]) if side and int(side[0]) % 64 == 0 else 0
    return replace(known, prediction=kind, zero_snr="ztsnr" in found.shapes, pixels=pixels, notes=notes)


def _parts(known: Known, found: Header, prefix: str) -> Known:
    """Where the file's networks are, and which it lacks."""
    if known.card is None:
        return known
    inside = known.card.recognize
    wanted = {"vae": AUTOENCODER, **inside.text}
    starts = {part: next((s for s in ways if found.has(s)), None) for part, ways in wanted.items()}
    there = {known.card.denoiser: prefix} | {part: start for part, start in starts.items() if start}
    lacks = tuple(p for p, start in starts.items() if start is None and p not in inside.optional)
    return replace(known, starts=there, lacks=lacks)


def _unfamiliar(file: Path, found: Header, inside: Mapping[str, tuple[int, ...]]) -> str:
    """What to say of a file that is no model of ours."""
    if title := next((title for key, title in _OTHERS.items() if key in inside or key in found.shapes), ""):
        return _other(file, title)
    if found.has("encoder.conv_in", "decoder.conv_in", "encoder.conv1", "decoder.conv1", *AUTOENCODER):
        return f"{file} holds an autoencoder and no U-Net or transformer; give it to --parts.vae, and a model to --model."
    words = ("text_model.", "encoder.block.", "model.layers.", "transformer.resblocks.", "shared.weight")
    if found.has(*words):
        return (
            f"{file} holds a text encoder and no U-Net or transformer; give it to --parts.text-encoder, and a model to "
            "--model."
        )
    return (
        f"{file} holds no U-Net or transformer of a known layout (its keys begin with {min(found.shapes, default='nothing')!r})"
        f"; known are {_titles()}, and what was trained for a model goes to --artifact."
    )


def _other(file: Path, what: str) -> str:
    return f"{file} is {what}, which no family here can draw with; known are {_titles()}."


def _titles() -> str:
    return ", ".join(card.title for card in families.cards().values())
