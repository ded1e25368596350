"""Put an export on the hub with a model card that tells what it is, how to call it, and how well it does."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, ModelCard, ModelCardData
from huggingface_hub.errors import HfHubHTTPError

from studio import catalog, runs
from studio.errors import StudioError

MAX_SAMPLES = 8


def card(folder: runs.RunFolder) -> str:
    """The model card of a run: base model, trigger, samples, scores, and the settings that make it again."""
    _, run = runs.open_run(folder.path)
    method: Mapping[str, Any] = runs.dump(run)["method"]
    info = catalog.card(str(method["kind"]))
    trigger = " ".join(str(method[k]) for k in ("token", "class_word") if method.get(k))
    data = ModelCardData(
        base_model=str(method.get("model", "")), library_name="diffusers", tags=["lora", info.name], license="other"
    )
    parts = [
        f"---\n{data.to_yaml()}\n---",
        f"# {folder.path.name}\n\n{info.title} ({info.paper}) of `{method.get('model', '')}`, {run.loop.steps} steps.",
        f"Trigger: `{trigger}`" if trigger else "",
        "\n".join(f"![sample](samples/{path.name})" for path in samples(folder)),
        _scores(folder),
        f"## Settings\n\n```json\n{json.dumps(runs.dump(run), indent=2)}\n```",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


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
