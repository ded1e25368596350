"""What a model is, told by its name, folder or file before anything of it is loaded. No torch."""

import re
from dataclasses import replace
from pathlib import Path

from studio import assets
from studio.catalog import families, model_folder, run_folder, single_file
from studio.catalog.known import Kind, Known
from studio.errors import StudioError, unknown
from studio.settings.sampling import Parts

__all__ = ["HUB_NAME", "Kind", "Known", "check", "is_own", "recognize", "usable"]

HUB_NAME = re.compile(r"^(?!.*(?:--|\.\.|\.git$))\w(?:[\w.-]*\w)?/\w(?:[\w.-]*\w)?$", re.ASCII)
"""What the hub takes for the name of a repository."""
_TINY = "tiny:"
_PICKLES = (".ckpt", ".pt", ".pth", ".bin")
_HUB_PAGE = re.compile(r"^https?://(?:huggingface\.co|hf\.co)/([\w.-]+/[\w.-]+)/?(?:tree/\w+/?)?$")


def recognize(model: str) -> Known:
    """What the model of a name, folder or file is; what cannot be loaded has a `refusal`.

    Args:
        model: As given to `--model`.
    """
    if model.startswith(_TINY):
        card = families.cards().get(model.removeprefix(_TINY))
        known = Known("tiny", card, None, "a tiny model with random weights")
        return known if card else replace(known, refusal=str(unknown("tiny model", model, _tiny_names())))
    if named := families.by_name(model):
        return Known("published", *named, "its name")
    try:
        return _lying(model, Path(model).expanduser())
    except (
        OSError,
        RuntimeError,
        ValueError,
    ) as error:  # too long, no such home, or a folder that is closed to us
        return Known(
            "unknown", refusal=f"{model[:200]} cannot be looked at ({_reason(error)}); check the path."
        )


def usable(model: str, parts: Parts = Parts()) -> Known:
    """What is known of a text-to-image model that may be loaded, with what a person said of it.

    Args:
        model: As given to `--model`.
        parts: What its file does not say of itself.

    Raises:
        StudioError: Its name, folder or file cannot be used.
    """
    known = recognize(model).told(parts)
    if known.refusal:
        raise StudioError(known.refusal, field="model")
    if known.kind == "unknown" and not HUB_NAME.match(model):
        if "/" in model or "\\" in model:
            raise StudioError(
                f"There is no folder or file {model}; check the path, or give a short name, such as sdxl, or a hub name, "
                "owner/name.",
                field="model",
            )
        embedded = (each.name for each in assets.path("models").iterdir() if _embedded(each.name))
        names = [*embedded, *(variant.name for _, variant in families.variants()), "tiny:FAMILY"]
        others = [*families.short_names(), *_tiny_names()]
        raise unknown("model", model, names, field="model", also=others)
    return known


def check(model: str, parts: Parts = Parts()) -> None:
    """Refuse a text-to-image model that cannot be used, before anything heavy is imported; empty is no model, and code is code.

    Raises:
        StudioError: See `usable`.
    """
    if model and not is_own(model):
        usable(model, parts)


def is_own(model: str) -> bool:
    """Whether a name is of a person's own code: `folder/my_family.py:load`."""
    return ":" in model and "://" not in model and not model.startswith(_TINY)


def _embedded(model: str) -> Known | None:
    """The embedded model of a name, if there is one."""
    inside = Path(model).name == model and assets.exists(f"models/{model}")
    found = model_folder.of_folder(assets.path(f"models/{model}")) if inside else None
    return found if found and found.card else None


def _tiny_names() -> list[str]:
    return [f"{_TINY}{name}" for name in families.cards()]


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error).rstrip(".")


def _lying(model: str, path: Path) -> Known:
    """What lies at a path, or among the embedded models."""
    if found := _embedded(model):
        return Known(
            "embedded", found.card, None, "an embedded model", found.path, prediction=found.prediction
        )
    if model and path.is_dir():
        return model_folder.of_folder(path)
    if path.suffix.lower() == ".safetensors" and "://" not in model:
        return single_file.of_file(path, model_folder.family_of(path.with_suffix("")))
    if run := run_folder.find(model):
        return model_folder.of_folder(run)
    return Known("unknown", refusal=_elsewhere(model, path))


def _elsewhere(model: str, path: Path) -> str:
    """Why what is neither a name, a folder nor a checkpoint cannot be loaded; empty for what may be a hub name."""
    if page := _HUB_PAGE.match(model):
        return f"{model} is a web address; give the model's name, {page[1]}."
    if "://" in model:
        return f"{model} is a web address; download the file and give its path, or give a hub name such as owner/name."
    if path.suffix.lower() in _PICKLES:
        return f"{model} is a pickle, which can run code when read; convert it to .safetensors first."
    if path.suffix.lower() == ".gguf":
        return (
            f"{model} is a GGUF file, whose quantized weights are not read here; give the .safetensors file of the same "
            "model, and --hardware.quantize where memory is short."
        )
    if path.is_file():
        return f"{model} is a file of no known kind; give a .safetensors checkpoint."
    return ""
