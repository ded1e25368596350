"""What a trained subject is examined on: its pictures, the prompts, and true pictures where there are any."""

import json
import logging
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import safe_open

from studio.data import layouts
from studio.data.captions import fill
from studio.errors import StudioError
from studio.records import runs

log = logging.getLogger(__name__)
PHRASE = "a photo of a {token} {class}"
"""How a subject is called where its run does not say."""
PLACES = ("", "in the snow", "on the beach", "in the jungle", "on a cobblestone street")
"""Where a subject is drawn when neither captions nor prompts say it (from the prompts of Ruiz et al. 2022, appendix)."""
MAX_CLASS_PROMPTS = 4
"""Prompts of the plain class that show what training did to the class."""


@dataclass(frozen=True, kw_only=True)
class Exam:
    """What is drawn and what it is compared with."""

    references: tuple[Path, ...]
    prompts: tuple[str, ...]
    targets: dict[str, Path] = field(default_factory=dict)
    """True picture of a prompt."""
    token: str = ""
    """Word that stands for the subject; empty if there is none."""

    @property
    def class_prompts(self) -> tuple[str, ...]:
        """The first prompts without the token; none if no prompt has it."""
        plain = dict.fromkeys(
            without_token(p, self.token) for p in self.prompts if self.token and self.token in p
        )
        return tuple(plain)[:MAX_CLASS_PROMPTS]


@dataclass(frozen=True, kw_only=True)
class Named:
    """What the settings of a run say about its subject; empty where they say nothing."""

    model: str = ""
    token: str = ""
    class_word: str = ""
    prompt: str = ""
    """Phrase with slots for token and class, as training captioned the pictures."""


def named_by(artifact: Path) -> Named:
    """Model, token and class of the run that an artifact is; nothing for a file of weights.

    A method of personalization calls these settings `model`, `token`, `class_word` and `prompt`. Where it chose the
    token itself, the exported file says it.
    """
    if (artifact / "model_index.json").is_file() or not (artifact / "config.json").is_file():
        return Named(token=_trigger(artifact, ""))
    method: dict[str, Any] = runs.open_run(artifact)[1].to_dict()["method"]
    told = {name: str(method.get(name, "")) for name in ("model", "token", "class_word", "prompt")}
    return Named(**told | {"token": told["token"] or _trigger(artifact, told["class_word"])})


def _trigger(artifact: Path, class_word: str) -> str:
    """The words that call what was learned, as an exported file tells, without the class."""
    files = [artifact] if artifact.is_file() else sorted((artifact / "export").glob("*.safetensors"))
    for file in files:
        if file.suffix == ".safetensors":
            with safe_open(file, "numpy") as opened:
                told = (opened.metadata() or {}).get("modelspec.trigger_phrase", "")
            return told.removesuffix(class_word).strip()
    return ""


def read(data: str, prompts: str, *, token: str, class_word: str, phrase: str = "") -> Exam:
    """An exam from a folder of pictures and a file of prompts.

    Args:
        data: Folder; pictures directly in it are the references.
        prompts: File with one prompt a line, or JSON: a list of prompts or of `{"prompt": ..., "target": ...}`, or
            an object that has such a list under `prompts` or `eval`. Targets lie beside the file or in `data`. Empty
            takes the captions of the pictures, whose targets are the pictures themselves; without captions the
            subject is drawn in a few places.
        token: Fills the slot `{token}`.
        class_word: Fills the slot `{class}`.
        phrase: What calls the subject in those places; empty takes a photo of it.
    """
    folder = Path(data)
    records = layouts.find(folder).records
    own = [record for record in records if record.path.parent == folder] or list(records)
    pairs = _read_file(Path(prompts), folder) if prompts else [(r.caption, r.path) for r in own if r.caption]
    if not pairs and not prompts and token and class_word:
        pairs = [(f"{phrase or PHRASE} {place}".strip(), None) for place in PLACES]
        log.info(
            "no captions and no --prompts: the subject is drawn in %d places, such as %s",
            len(PLACES),
            PLACES[1],
        )
    if not token and any("{token}" in prompt for prompt, _ in pairs):
        raise StudioError(
            "The prompts have the slot {token}, but no token is known; give --token.", field="token"
        )
    filled = [(fill(prompt, token, class_word), target) for prompt, target in pairs]
    if not filled:
        raise StudioError(
            f"There is nothing to draw: no --prompts file is given and the pictures in {data!r} have no captions; "
            "give a file with one prompt a line, or name the subject with --token and --class-word.",
            field="prompts",
        )
    return Exam(
        references=tuple(record.path for record in own),
        prompts=tuple(dict.fromkeys(prompt for prompt, _ in filled)),
        targets={prompt: target for prompt, target in filled if target is not None},
        token=token,
    )


def _read_file(file: Path, data: Path) -> list[tuple[str, Path | None]]:
    """Prompts and their true pictures."""
    try:
        text = file.read_text(encoding="utf-8")
        rows = json.loads(text) if file.suffix == ".json" else text.splitlines()
    except FileNotFoundError:
        raise StudioError(
            f"There is no file {str(file)!r}; --prompts takes a text file with one prompt a line, or JSON.",
            field="prompts",
        ) from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise StudioError(
            f"Cannot read the prompts in {str(file)!r} ({error}); give a text file with one prompt a line, or JSON.",
            field="prompts",
        ) from None
    if isinstance(rows, dict):
        rows = rows.get("prompts") or rows.get("eval") or []
    return [_read_row(row, file, data) for row in rows if not isinstance(row, str) or row.strip()]


def _read_row(row: Any, file: Path, data: Path) -> tuple[str, Path | None]:
    if isinstance(row, str):
        return row.strip(), None
    if not isinstance(row, dict) or "prompt" not in row:
        raise StudioError(
            f"{str(file)!r} holds {row!r}; a prompt is a text or an object with 'prompt'.", field="prompts"
        )
    if not row.get("target"):
        return str(row["prompt"]), None
    places = [base / row["target"] for base in (file.parent, data)]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise StudioError(
            f"The target {row['target']!r} of {row['prompt']!r} lies neither beside {str(file)!r} nor in {str(data)!r}.",
            field="prompts",
        )
    return str(row["prompt"]), found


def without_token(prompt: str, token: str) -> str:
    """A prompt that asks for the class alone: "a photo of a sks owl" becomes "a photo of an owl"."""
    word = rf"(?<!\w){re.escape(token)}(?!\w)\s*"

    def article(match: re.Match[str]) -> str:
        return f"{match[1]}n " if match[2].lower() in "aeiou" else f"{match[1]} "

    return re.sub(word, "", re.sub(rf"\b([Aa])n? {word}(?=(\w))", article, prompt))
