"""The model card, and the way to the hub."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import HfApi, ModelCard, ModelCardData
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
)

from studio.adapters.config import Export
from studio.adapters.metadata import Facts
from studio.errors import StudioError

HOW = {
    "pytorch_lora_weights.safetensors": 'diffusers: `pipeline.load_lora_weights("<this repository>")`',
    "peft": "PEFT: `PeftModel.from_pretrained(pipeline.unet, ...)`, one folder a component",
    "merged": "diffusers: `DiffusionPipeline.from_pretrained(...)`, the whole pipeline with the training folded in",
}
"""How each file is used; other .safetensors files go into the LoRA folder of A1111, Forge or ComfyUI."""


def write_card(folder: Path, family: str, settings: Export, facts: Facts) -> Path:
    """Write README.md with the base model, trigger words, pictures, scores and files of an export folder.

    The pictures are copied into the folder, so that it can be uploaded as it is.
    """
    pictures = _copied(facts.samples, folder / "samples")
    path = folder / "README.md"
    ModelCard(_front(settings, facts, pictures) + _body(folder, family, settings, facts, pictures)).save(path)
    return path


def push_to_hub(folder: Path, repository: str, *, private: bool = True) -> str:
    """Upload an export folder with its card; returns the page's address.

    Raises:
        StudioError: Nobody is logged in, the name is not allowed, or the hub refuses.
    """
    if not (folder / "README.md").is_file():
        raise StudioError(f"{folder} has no model card; export it first.")
    api = HfApi()
    try:
        made = api.create_repo(repository, private=private, exist_ok=True)
        api.upload_folder(repo_id=made.repo_id, folder_path=folder, ignore_patterns=[".part-*"])
    except (LocalTokenNotFoundError, HFValidationError, OfflineModeIsEnabled, HfHubHTTPError) as error:
        first = str(error).strip().splitlines()[0]
        raise StudioError(
            f"{folder} could not be sent to {repository!r} ({first}); log in with `hf auth login` and give a name "
            "such as user/model.",
            field="push_to_hub",
        ) from error
    return str(made)


def _copied(samples: Sequence[Path], target: Path) -> list[str]:
    if samples:
        target.mkdir(parents=True, exist_ok=True)
    return [f"samples/{Path(shutil.copy(picture, target)).name}" for picture in samples]


def _front(settings: Export, facts: Facts, pictures: Sequence[str]) -> str:
    """The card's machine-readable head."""
    data = ModelCardData(
        base_model=facts.base_model or None,
        license=settings.license or None,
        library_name="diffusers",
        pipeline_tag="text-to-image",
        tags=["text-to-image", "diffusers", "finetuning-studio", *_kinds(settings)],
        instance_prompt=settings.trigger or None,
        widget=[{"text": settings.trigger or " ", "output": {"url": picture}} for picture in pictures]
        or None,
    )
    return f"---\n{data.to_yaml()}\n---\n"


def _kinds(settings: Export) -> list[str]:
    return [] if settings.formats == ("merged",) else ["lora"]


def _body(folder: Path, family: str, settings: Export, facts: Facts, pictures: Sequence[str]) -> str:
    title = settings.name or folder.resolve().parent.name
    lines = [
        f"# {title}",
        "",
        settings.description or f"Finetuned with Finetuning Studio from a {family} model.",
        "",
    ]
    rows = {
        "Base model": facts.base_model or family,
        "Trigger": f"`{settings.trigger}`" if settings.trigger else "",
        "Author": settings.author,
        "Steps": str(facts.steps) if facts.steps else "",
        "Seed": str(facts.seed),
    }
    lines += ["| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in rows.items() if value), ""]
    if facts.scores:
        scores = (f"| {key} | {value:.4g} |" for key, value in facts.scores.items())
        lines += ["## Scores", "", "| score | value |", "|---|---|", *scores, ""]
    if pictures:
        lines += ["## Pictures", "", *(f"![{settings.trigger}]({picture})" for picture in pictures), ""]
    lines += ["## Files", "", *_files(folder), ""]
    return "\n".join(lines)


def _files(folder: Path) -> list[str]:
    """One line a file or folder: what it is for."""
    found = [path for path in sorted(folder.iterdir()) if path.suffix == ".safetensors" or path.name in HOW]
    ui = "A1111, Forge, ComfyUI: put it into the LoRA folder"
    return [f"- `{path.name}`: {HOW.get(path.name, ui)}" for path in found]
