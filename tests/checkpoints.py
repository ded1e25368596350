"""The table of kinds of checkpoint and what happens with each: `python -m tests.checkpoints` writes docs/checkpoints.md."""

import tempfile
from pathlib import Path

from studio.catalog.describe import describe
from studio.catalog.recognize import recognize
from tests.checkpoint_kinds import FILES, FOLDERS

PLACE = Path(__file__).resolve().parents[1] / "docs" / "checkpoints.md"
HEAD = """# Checkpoints

What `--model` takes, and what happens with each kind of file and folder that people have. `studio models inspect MODEL` says it of
yours in a moment: it reads names, shapes and settings alone. This page is made by `python -m tests.checkpoints`.

Settings of a file come from a diffusers folder of the same name beside it (`model.safetensors`, `model/`), else from the family's
card. What the file lacks comes from the published model on the hub or in its cache, which is told; or from you:

| setting | what for |
| --- | --- |
| `--parts.variant flux-schnell` | which published model it was made from, where the file cannot say: the guess is told |
| `--parts.vae FILE` | another autoencoder: a `.safetensors` file, a folder or a hub name |
| `--parts.text-encoder FILE ...` | other text encoders, each for the one that it fits |
| `--parts.prediction v_prediction` | what the denoiser predicts, where its settings are wrong or say nothing |
"""


def happens(kind) -> str:
    """What is said of a kind, in one line."""
    with tempfile.TemporaryDirectory() as made:
        path = str(kind.make(Path(made)))
        facts = describe(recognize(path))
        text = f"refused: {facts['refused']}" if "refused" in facts else _loads(facts)
    return text.replace(path, "NAME").replace(f"{made}/", "").replace(made, "NAME")


def _loads(facts) -> str:
    told = ("variant", "predicts", "weights", "missing", "notes")
    words = {"variant": "", "notes": ""}
    return "; ".join(f"{words.get(name, name)} {facts[name]}".strip() for name in told if name in facts)


def table(kinds) -> str:
    """A row a kind."""
    rows = [f"| {kind.title} | {happens(kind).replace('|', '/')} |" for kind in kinds]
    return "\n".join(["| what | what happens |", "| --- | --- |", *rows])


def page() -> str:
    """The whole page."""
    return f"{HEAD}\n## Files\n\n{table(FILES)}\n\n## Folders and names\n\n{table(FOLDERS)}\n"


if __name__ == "__main__":
    PLACE.write_text(page(), encoding="utf-8")
