"""Benchmarks of personalization: which subjects, which prompts, which pictures to draw.

DreamBench (Ruiz et al. 2022, arXiv 2208.12242, sec. 4.1): 30 subjects, 25 prompts each, 4 pictures a prompt, 3000 in
all. Its `prompts_and_classes.txt` is read as the authors published it. `personalization_bench` is our small one.
"""

import ast
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from studio.data import layouts
from studio.data.captions import fill
from studio.data.layouts import is_image
from studio.errors import StudioError, unknown

PROMPTS_FILE = "prompts_and_classes.txt"
SUBJECTS_FILE = "subjects.json"
IMAGES_PER_PROMPT = 4
LIVE_CLASSES = frozenset({"cat", "dog"})
"""Classes of the live subjects, which have prompts of their own (paper, sec. 4.1: pets; the file does not mark them)."""
_QUOTED = re.compile(
    r"^\s*('(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\")\.format\(unique_token, class_token\),?\s*$"
)


@dataclass(frozen=True, kw_only=True)
class Subject:
    """One subject. Prompts are templates with the slots `{token}` and `{class}`; targets belong to prompts by place."""

    name: str
    class_name: str
    references: tuple[Path, ...]
    prompts: tuple[str, ...]
    live: bool = False
    targets: dict[int, Path] = field(default_factory=dict)
    captions: tuple[str, ...] = ()
    """Captions of the references, as templates; empty if there are none."""

    def prompt(self, index: int, token: str) -> str:
        """A prompt with its slots filled; an empty token asks for the class alone."""
        return fill(self.prompts[index], token, self.class_name)


@dataclass(frozen=True)
class Job:
    """One picture to draw."""

    subject: str
    prompt_index: int
    prompt: str
    seed: int


@dataclass(frozen=True)
class Bench:
    """The subjects of a benchmark, in the order of its file."""

    name: str
    subjects: tuple[Subject, ...]

    def subject(self, name: str) -> Subject:
        """A subject by name.

        Raises:
            StudioError: If there is none of that name.
        """
        named = {subject.name: subject for subject in self.subjects}
        if name not in named:
            raise unknown("subject", name, named, field="subject")
        return named[name]

    def jobs(self, token: str, num_images: int = IMAGES_PER_PROMPT) -> list[Job]:
        """Every picture of the protocol: seeds 0, 1, ... for each prompt of each subject."""
        return [
            Job(subject.name, index, subject.prompt(index, token), seed)
            for subject in self.subjects
            for index in range(len(subject.prompts))
            for seed in range(num_images)
        ]


def load(folder: str | Path) -> Bench:
    """The benchmark in a folder, by the file that describes it.

    Raises:
        StudioError: If there is none, or it is not complete.
    """
    root = Path(folder).expanduser()
    if (root / PROMPTS_FILE).is_file():
        return Bench("dreambench", _dreambench(root))
    if (root / SUBJECTS_FILE).is_file():
        return Bench("personalization_bench", _personalization_bench(root))
    message = f"{str(root)!r} holds no benchmark; give a folder with {PROMPTS_FILE} (DreamBench) or {SUBJECTS_FILE}."
    raise StudioError(message, field="data")


def _references(folder: Path) -> tuple[Path, ...]:
    found = tuple(sorted(path for path in folder.glob("*") if is_image(path))) if folder.is_dir() else ()
    if not found:
        raise StudioError(f"The benchmark has no pictures in {folder}; copy it whole.", field="data")
    return found


def _dreambench(root: Path) -> tuple[Subject, ...]:
    """Subjects of `prompts_and_classes.txt`: a table of classes, then two lists of prompts."""
    file = root / PROMPTS_FILE
    table, _, prompts = file.read_text("utf-8").partition("Prompts")
    objects, _, live = prompts.partition("Live Subject Prompts")
    pairs = [
        line.split(",") for line in table.splitlines() if "," in line and not line.startswith("subject_name")
    ]
    object_prompts, live_prompts = _templates(objects), _templates(live)
    if not (pairs and object_prompts and live_prompts):
        message = f"{file} lacks its classes, object prompts or live subject prompts; take the authors' file."
        raise StudioError(message, field="data")
    return tuple(
        Subject(
            name=name.strip(),
            class_name=class_name.strip(),
            references=_references(root / name.strip()),
            prompts=live_prompts if class_name.strip() in LIVE_CLASSES else object_prompts,
            live=class_name.strip() in LIVE_CLASSES,
        )
        for name, class_name in pairs
    )


def _templates(text: str) -> tuple[str, ...]:
    """The quoted prompts of a list, with our slots for theirs."""
    quoted = [match[1] for line in text.splitlines() if (match := _QUOTED.match(line))]
    return tuple(ast.literal_eval(prompt).format("{token}", "{class}") for prompt in quoted)


def _personalization_bench(root: Path) -> tuple[Subject, ...]:
    rows = json.loads((root / SUBJECTS_FILE).read_text("utf-8"))
    return tuple(_small_subject(root, row) for row in rows)


def _small_subject(root: Path, row: dict[str, Any]) -> Subject:
    """A subject of `subjects.json`; its references are those named in its metadata."""
    folder = root / row["dir"]

    def template(text: str) -> str:
        phrase = f"{row['placeholder']} {row['class_word']}"
        return text.replace(phrase, "{token} {class}")

    records = layouts.find(folder).records
    return Subject(
        name=row["subject"],
        class_name=row["class_word"],
        references=tuple(record.path for record in records),
        captions=tuple(template(record.caption) for record in records),
        prompts=tuple(template(job["prompt"]) for job in row["eval"]),
        targets={index: folder / job["target"] for index, job in enumerate(row["eval"]) if "target" in job},
    )
