"""What a model is, told by its name, folder or file before anything of it is loaded. No torch."""

import re
from pathlib import Path

from studio import assets
from studio.catalog import families, model_folder, run_folder, single_file
from studio.catalog.known import Kind, Known

__all__ = ["HUB_NAME", "Kind", "Known", "recognize"]

HUB_NAME = re.compile(r"^[\w.-]+/[\w.-]+$")
_PICKLES = (".ckpt", ".pt", ".pth", ".bin")
_HUB_PAGE = re.compile(r"^https?://(?:huggingface\.co|hf\.co)/([\w.-]+/[\w.-]+)/?(?:tree/\w+/?)?$")


def recognize(model: str) -> Known:
    """What the model of a name, folder or file is; what cannot be loaded has a `refusal`.

    Args:
        model: As given to `--model`.
    """
    if model.startswith("tiny:"):
        card = families.cards().get(model.removeprefix("tiny:"))
        return Known("tiny", card, None, "a tiny model with random weights")
    if named := families.by_name(model):
        return Known("published", *named, "its name")
    if (
        assets.exists(f"models/{model}")
        and (found := model_folder.of_folder(assets.path(f"models/{model}"))).card
    ):
        return Known(
            "embedded", found.card, None, "an embedded model", found.path, prediction=found.prediction
        )
    path = Path(model).expanduser()
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
