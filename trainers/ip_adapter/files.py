"""IP-Adapter files in the authors' layout, which diffusers' `load_ip_adapter` reads; ours and those of others.

`image_proj.*` and `ip_adapter.N.to_k_ip.weight`, N = 1, 3, 5 ... in the order of the U-Net's attention processors.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from diffusers.loaders.unet import UNet2DConditionLoadersMixin
from torch import Tensor, cat, nn

from studio.adapters.files import read
from studio.errors import StudioError
from studio.models.base import Family
from studio.models.vision_tower import VisionTower, load_tower
from studio.records.trained import Trained
from studio.settings import serial
from trainers.ip_adapter.config import Global, Patches, Plus, Projection
from trainers.ip_adapter.layers import HEAD, IpNetwork

FILE = "ip_adapter.safetensors"
VIT_H = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"
VIT_BIGG = "laion/CLIP-ViT-bigG-14-laion2B-39B-b160k"
ENCODERS = {(Global, 1024): VIT_H, (Global, 1280): VIT_BIGG, (Plus, 1280): VIT_H, (Plus, 1664): VIT_BIGG,
            (Patches, 1280): VIT_H}  # fmt: skip
"""Encoder of public files, by kind of projection and the width that it reads."""
_RENAMED = (
    (r"^image_embeds\.", "proj."),
    (r"^ff\.net\.0\.proj\.", "proj.0."),
    (r"^ff\.net\.2\.", "proj.2."),
    (r"\.ln0\.", ".0.norm1."),
    (r"\.ln1\.", ".0.norm2."),
    (r"\.attn\.to_out\.0\.", ".0.to_out."),
    (r"\.attn\.to_q\.", ".0.to_q."),
    (r"\.ff\.0\.", ".1.0."),
    (r"\.ff\.1\.net\.0\.proj\.", ".1.1."),
    (r"\.ff\.1\.net\.2\.", ".1.3."),
)
"""diffusers' names of the projections to the authors'."""


def tensors(network: IpNetwork) -> dict[str, Tensor]:
    """A network in the authors' names."""
    found: dict[str, Tensor] = {}
    own = network.image_proj.state_dict()
    per_patch = any(key.startswith("ff.net") for key in own)
    for key, value in own.items():
        if key.endswith(".attn.to_v.weight"):
            continue
        if key.endswith(".attn.to_k.weight"):
            both = cat([value, own[key.replace("to_k", "to_v")]])
            found[key.replace(".attn.to_k.", ".0.to_kv.")] = both
            continue
        name = f"proj.3.{key.removeprefix('norm.')}" if per_patch and key.startswith("norm.") else key
        for pattern, replacement in _RENAMED:
            name = re.sub(pattern, replacement, name)
        found[name] = value
    named = {f"image_proj.{key}": value for key, value in found.items()}
    layers = {f"ip_adapter.{key}": value for key, value in network.ip_adapter.state_dict().items()}
    return {key: value.detach().cpu() for key, value in (named | layers).items()}


def split(values: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """The two parts, as `load_ip_adapter` takes them."""
    parts: dict[str, dict[str, Tensor]] = {"image_proj": {}, "ip_adapter": {}}
    for key, value in values.items():
        part, _, rest = key.partition(".")
        if part in parts:
            parts[part][rest] = value
    return parts


def projection_of(values: Mapping[str, Tensor], where: Path) -> tuple[Projection, int]:
    """Kind of the projection in a file, and the width of the encoder's output that it reads.

    Raises:
        StudioError: It is of a kind that we do not read.
    """
    if "proj.weight" in values:
        return Global(), values["proj.weight"].shape[1]
    if "proj.3.weight" in values:
        return Patches(), values["proj.0.weight"].shape[1]
    if "latents" in values and "proj_in.weight" in values:
        _, queries, hidden = values["latents"].shape
        heads = values["layers.0.0.to_q.weight"].shape[0] // HEAD
        return Plus(queries=queries, width=hidden, heads=heads), values["proj_in.weight"].shape[1]
    raise StudioError(
        f"{where} has an image projection that is neither that of IP-Adapter, IP-Adapter Plus nor the full one (FaceID "
        "needs a face recognizer); load one of these.",
        field="artifact",
    )


@dataclass(frozen=True)
class Loaded:
    """A network with the encoder that it reads."""

    network: IpNetwork
    tower: VisionTower


def load(trained: Trained, family: Family) -> Loaded:
    """A trained folder, or a public file, on a family.

    Raises:
        StudioError: It does not fit the family or the encoder.
    """
    path, parts = _parts(trained)
    kind, width = projection_of(parts["image_proj"], path)
    tower = load_tower(
        _encoder(trained, path, kind, width), family.backend, layer=int(trained.settings.get("layer", -2))
    )
    reads = tower.pooled_width if isinstance(kind, Global) else tower.width
    if reads != width:
        raise StudioError(
            f"{path} reads {width} numbers from its image encoder, and {tower.name} gives {reads}; put the encoder that "
            "it was trained with into a folder image_encoder beside it.",
            field="artifact",
        )
    network = IpNetwork(family, tower, kind)
    _fill(network, parts, path, family)
    return Loaded(family.backend.place(network).float(), tower)


def take_up(network: IpNetwork, trained: Trained, projection: Projection, family: Family) -> None:
    """Fill a network with a projection, to train on from a trained folder or a public file.

    Raises:
        StudioError: They do not fit.
    """
    path, parts = _parts(trained)
    kind, _ = projection_of(parts["image_proj"], path)
    if kind != projection:
        raise StudioError(
            f"{path} has the projection {serial.spoken(kind)}, and these settings {serial.spoken(projection)}; set it as it was "
            "(--projection), or start from another file.",
            field="projection",
        )
    _fill(network, parts, path, family, "start")


def _parts(trained: Trained) -> tuple[Path, dict[str, dict[str, Tensor]]]:
    path = trained.folder / FILE if trained.folder.is_dir() else trained.folder
    values, _ = read(path)
    return path, split(values)


def _encoder(trained: Trained, path: Path, kind: Projection, width: int) -> str:
    """Name of the encoder: what the folder says, what lies beside a public file, or what such files are made with."""
    beside = path.parent / "image_encoder"
    if "encoder" in trained.settings:
        return str(trained.settings["encoder"])
    if beside.is_dir():
        return str(beside)
    if (type(kind), width) not in ENCODERS:
        raise StudioError(
            f"{path} does not tell its image encoder, whose output has {width} numbers; put the encoder into a folder "
            "image_encoder beside it.",
            field="artifact",
        )
    return ENCODERS[type(kind), width]


def _fill(
    network: IpNetwork,
    parts: Mapping[str, dict[str, Tensor]],
    path: Path,
    family: Family,
    field: str = "artifact",
) -> None:
    own = network.ip_adapter.state_dict()
    theirs = parts["ip_adapter"]
    wrong = [
        key
        for key in own.keys() | theirs.keys()
        if key not in own or key not in theirs or own[key].shape != theirs[key].shape
    ]
    if wrong:
        key = min(wrong)
        shapes = [tuple(found[key].shape) if key in found else "nothing" for found in (theirs, own)]
        raise StudioError(
            f"{path} was made for another model than this {family.name}: {len(wrong)} of its layers do not fit, first "
            f"{key} with {shapes[0]} where the model has {shapes[1]}; load it on its own base.",
            field=field,
        )
    network.ip_adapter.load_state_dict(theirs)
    try:
        converted = _converted(parts["image_proj"])
        network.image_proj.load_state_dict(converted.state_dict())
    except (RuntimeError, KeyError) as error:
        raise StudioError(
            f"The image projection of {path} does not fit this {family.name} ({str(error).splitlines()[-1].strip()}); "
            "load it on the base and with the encoder that it was trained with.",
            field=field,
        ) from error


def _converted(values: Mapping[str, Tensor]) -> nn.Module:
    """The projection as diffusers reads it from the authors' names."""
    convert = UNet2DConditionLoadersMixin._convert_ip_adapter_image_proj_to_diffusers
    return convert(cast("Any", None), dict(values), low_cpu_mem_usage=False)
