"""Dual encoders by name: open_clip, transformers, the embedded one, tiny random ones.

    model = load_clip("studio-tiny-clip")
    model.logits(model.images(pictures), model.texts(["a fox", "a bus"]))

The verbs are those of `studio.models.dual.DualEncoder`.
"""

import difflib
import json
from pathlib import Path

import open_clip

from studio import assets
from studio.errors import StudioError, unknown
from studio.models.clip_open import load_open_clip, tiny_open_clip
from studio.models.clip_transformers import KINDS, load_transformers, tiny_transformers
from studio.models.dual import DualEncoder, States

__all__ = ["EMBEDDED", "TINY", "DualEncoder", "States", "load_clip"]

EMBEDDED = ("studio-tiny-clip",)
TINY = ("tiny:clip", "tiny:siglip", "tiny:open-clip")
"""Random models from configuration, 32 px, for tests."""


def load_clip(name: str, pretrained: str = "") -> DualEncoder:
    """A dual encoder by name, on the CPU in fp32, in eval mode.

    Fresh weights come from torch's global generator: call it under a seeded one.

    Args:
        name: `studio-tiny-clip`, a folder written by open_clip, transformers or a run, a run folder, an open_clip name
            such as ViT-B-32, `hf-hub:` and an open_clip model of the hub, a transformers model of the hub
            (openai/clip-vit-base-patch32, google/siglip-base-patch16-224), or one of `TINY`.
        pretrained: Weights of an open_clip name: a tag such as openai, or a file; empty takes the first tag.

    Raises:
        StudioError: An unknown name, weights that are not there, a folder of something else.
    """
    if name.startswith("tiny:"):
        return _tiny(name).eval()
    folder = _folder(name)
    if folder and (folder / "open_clip_config.json").is_file():
        return load_open_clip(name, folder).eval()
    if folder:
        return load_transformers(str(folder), _kind(folder)).eval()
    if name.startswith("hf-hub:") or name in open_clip.list_models():
        return load_open_clip(name, None, pretrained).eval()
    if "/" in name:
        return load_transformers(name, "siglip" if "siglip" in name.lower() else "clip").eval()
    near = difflib.get_close_matches(name, open_clip.list_models(), n=5)
    raise unknown("model", name, [*EMBEDDED, *TINY, *near, "any open_clip name"], field="model")


def _tiny(name: str) -> DualEncoder:
    if name not in TINY:
        raise unknown("model", name, TINY, field="model")
    return tiny_open_clip() if name == "tiny:open-clip" else tiny_transformers(name.removeprefix("tiny:"))


def _folder(name: str) -> Path | None:
    """The folder that a name means: the embedded model's, a given one, or a run's export."""
    given = Path(name)
    for place in (
        assets.root() / "models" / name,
        given,
        given / "export",
        Path("runs") / name / "export",
    ):
        if any((place / file).is_file() for file in ("open_clip_config.json", "config.json")) and (
            place != given or not (given / "export").is_dir()  # a run folder has a config.json of its own
        ):
            return place
    if name in EMBEDDED or given.is_dir():
        raise StudioError(
            f"{name!r} holds neither open_clip_config.json nor the config.json of a transformers CLIP or SigLIP; give a "
            "folder saved by one of them, a run that has exported, or a name.",
            field="model",
        )
    return None


def _kind(folder: Path) -> str:
    """Which transformers model a folder holds.

    Raises:
        StudioError: Neither CLIP nor SigLIP.
    """
    kind = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type", "")
    if kind not in KINDS:
        raise StudioError(
            f"{str(folder)!r} holds a model of type {kind!r}, not a dual encoder; give one of type {' or '.join(KINDS)}.",
            field="model",
        )
    return kind
