"""Put an export on the hub with a model card that tells what it is, how to call it, and how well it does."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, ModelCard, ModelCardData
from huggingface_hub.errors import HfHubHTTPError

from studio.adapters.files import read
from studio.catalog import methods
from studio.errors import StudioError
from studio.records import runs

MAX_SAMPLES = 8


USES = {
    "pytorch_lora_weights.safetensors": "diffusers: `pipeline.load_lora_weights(...)` of this repository",
    "peft": "PEFT: `PeftModel.from_pretrained(...)`, one folder a component",
    "merged": "diffusers: `DiffusionPipeline.from_pretrained(...)`, the pipeline with the training folded in",
}
"""What each exported file is for; any other .safetensors file goes into a web UI's LoRA folder."""


def card(folder: runs.RunFolder) -> str:
    """The model card of a run: base model, trigger, files, samples, scores, and the settings that make it again."""
    _, run = runs.open_run(folder.path)
    method: Mapping[str, Any] = run.to_dict()["method"]
    info = methods.card(str(method["kind"]))
    own: Mapping[str, Any] = method.get("export", {})
    trigger = _trigger(folder) or " ".join(str(method[k]) for k in ("token", "class_word") if method.get(k))
    pictures = [f"samples/{path.name}" for path in samples(folder)]
    data = ModelCardData(
        base_model=str(method.get("model", "")),
        library_name="diffusers",
        license=own.get("license") or "other",
        tags=["lora", info.name],
        instance_prompt=trigger or None,
        widget=[{"text": trigger or " ", "output": {"url": picture}} for picture in pictures] or None,
    )
    author = f" By {own['author']}." if own.get("author") else ""
    made = f"{info.title} ({info.paper}) of `{method.get('model', '')}`, {run.loop.steps} steps.{author}"
    parts = [
        f"---\n{data.to_yaml()}\n---",
        f"# {own.get('name') or folder.path.name}\n\n{made}",
        str(own.get("description", "")),
        f"Trigger: `{trigger}`" if trigger else "",
        "\n".join(f"![sample]({picture})" for picture in pictures),
        _scores(folder),
        _files(folder),
        f"## Settings\n\n```json\n{json.dumps(run.to_dict(), indent=2)}\n```",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _trigger(folder: runs.RunFolder) -> str:
    """The words that the exported files say: a run may have picked its own."""
    told = (read(file)[1] for file in sorted(folder.export.glob("*.safetensors")))
    return next(
        (header["modelspec.trigger_phrase"] for header in told if "modelspec.trigger_phrase" in header), ""
    )


def _files(folder: runs.RunFolder) -> str:
    found = sorted(p for p in folder.export.iterdir() if p.suffix == ".safetensors" or p.name in USES)
    web = "A1111, Forge, ComfyUI: put it into the LoRA folder"
    lines = [f"- `{path.name}`: {USES.get(path.name, web)}" for path in found]
    return "\n".join(["## Files", "", *lines]) if lines else ""


def samples(folder: runs.RunFolder) -> list[Path]:
    """The last pictures drawn while training."""
    drawn = sorted(p for p in folder.samples.glob("step-*") if p.is_dir())
    return sorted(drawn[-1].glob("*.png"))[:MAX_SAMPLES] if drawn else []


def _scores(folder: runs.RunFolder) -> str:
    found = [e["scores"] for e in folder.read_events("preview") if e.get("scores")]
    if not found:
        return ""
    return "## Scores\n\n" + "\n".join(f"- {name}: {value:.4f}" for name, value in sorted(found[-1].items()))


def push(folder: runs.RunFolder, repo: str) -> str:
    """Upload an export with its card; gives the address of the page.

    Raises:
        StudioError: The hub cannot be reached or refuses.
    """
    (folder.export / "README.md").write_text(card(folder), encoding="utf-8")
    ModelCard.load(folder.export / "README.md")
    api = HfApi()
    try:
        url = api.create_repo(repo, exist_ok=True)
        for path in samples(folder):
            api.upload_file(path_or_fileobj=path, path_in_repo=f"samples/{path.name}", repo_id=repo)
        api.upload_folder(repo_id=repo, folder_path=folder.export)
    except (HfHubHTTPError, OSError) as error:
        raise StudioError(
            f"{repo!r} could not be published ({error}); log in with `hf auth login`, check the name and the network.",
            field="push_to_hub",
        ) from None
    return str(url)
