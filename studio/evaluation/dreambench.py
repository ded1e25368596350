"""The DreamBench protocol: `studio eval dreambench`.

Ruiz et al. 2022, arXiv 2208.12242, section 4: 30 subjects, 25 prompts each, 4 pictures a prompt. DINO and CLIP-I are
mean cosines over all pairs of a drawn and a real picture of the subject, CLIP-T is the cosine to the prompt, PRES the
DINO score of pictures of the plain class against the real pictures of the subject (lower is better), DIV the mean
distance between pictures of one prompt.

Aggregation (the paper does not say): pairs to prompts to subjects, unweighted. Seeds are 0 to 3 (ours).
"""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from studio.backend.core import Backend
from studio.backend.rng import Rng
from studio.contracts.sampling import Request
from studio.data import dreambench
from studio.data import images as reading
from studio.data.dreambench import Subject
from studio.errors import StudioError
from studio.evaluation import exam
from studio.metrics import table
from studio.metrics.build import Evidence, Jury
from studio.metrics.config import DreamBenchEval, Likeness, PromptFit
from studio.metrics.statistics import estimate
from studio.metrics.table import Row
from studio.models import build, draw
from studio.records import runs, texts
from studio.reports.html import TRAINED, Column, Page, write
from studio.settings import serial
from studio.settings.custom import by_name
from studio.settings.sampling import Text
from studio.weights import artifacts

log = logging.getLogger(__name__)
CLASS_PROMPT = "a {class}"
Draw = Callable[[Sequence[str]], list[Image.Image]]
"""Draws the asked number of pictures of each prompt."""
Scores = dict[str, list[float]]
"""Score to one number a prompt."""


@dataclass(frozen=True)
class DreamBench:
    """Scores of every subject, and where everything was written."""

    subjects: Mapping[str, Scores]
    rows: Sequence[Row]
    folder: Path


def evaluate(request: DreamBenchEval) -> DreamBench:
    """Draw what is missing, score all, write `scores.json` and `report.html`.

    Raises:
        StudioError: A subject has neither pictures nor a run.
    """
    bench = dreambench.load(request.data)
    subjects = [bench.subject(name) for name in request.subjects] or list(bench.subjects)
    folder = Path(request.output)
    missing = [s for s in subjects if not all(f.is_file() for f in _files(folder, s, request))]
    places = {s.name: _run_of(Path(request.runs), s.name) for s in missing}
    backend = Backend(request.hardware)
    for subject in missing:
        log.info("drawing %s with %s", subject.name, places[subject.name])
        draw_missing(folder, subject, request, _drawer(places[subject.name], request, backend))
    jury = Jury(backend.device, request.judges.batch_size)
    scores = {subject.name: score(folder, subject, request, jury) for subject in subjects}
    result = DreamBench(scores, aggregate(scores, real_pictures(subjects, request, jury)), folder)
    _write(request, subjects, result, jury)
    return result


def aggregate(subjects: Mapping[str, Scores], ceilings: Mapping[str, float]) -> list[Row]:
    """Mean over the prompts of each subject, then over the subjects; standard errors count subjects."""
    found = []
    for name in dict.fromkeys((*table.MEANINGS, *(name for scores in subjects.values() for name in scores))):
        values = [estimate(scores[name]).mean for scores in subjects.values() if scores.get(name)]
        if values:
            found.append(Row(name, estimate(values), ceiling=ceilings.get(name)))
    return found


def score(folder: Path, subject: Subject, request: DreamBenchEval, jury: Jury) -> Scores:
    """One number a prompt for each score of a subject."""
    judges = request.judges
    silent = () if request.keep_token else (request.token,)
    evidence = Evidence(references=[reading.read(p).rgb for p in subject.references], silent=silent)
    dino = jury.scorer(Likeness(backbone=judges.likeness), evidence)
    scorers = {"likeness": dino}
    if text := jury.text_of(judges):
        scorers["clip_likeness"] = jury.scorer(Likeness(backbone=text), evidence)
        scorers["prompt_fit"] = jury.scorer(PromptFit(backbone=text), evidence)
    scorers |= {name: jury.scorer(custom, evidence) for name, custom in by_name(judges.custom).items()}
    spread = jury.diversity(judges.diversity)
    found: Scores = {name: [] for name in (*scorers, "diversity")}
    for index in range(len(subject.prompts)):
        prompt = subject.prompt(index, request.token)
        pictures = [reading.read(p).rgb for p in _pictures(folder, subject, str(index), request)]
        for name, scorer in scorers.items():
            found[name].append(float(scorer(pictures, [prompt] * len(pictures)).mean()))
        if len(pictures) > 1:
            found["diversity"].append(spread(pictures))
    plain = [reading.read(p).rgb for p in _pictures(folder, subject, "class", request)]
    return found | {"prior_leak": [float(dino(plain, [""] * len(plain)).mean())]}


def real_pictures(subjects: Sequence[Subject], request: DreamBenchEval, jury: Jury) -> dict[str, float]:
    """DINO and CLIP-I between different real pictures of one subject ("real images" in the paper's table 1)."""
    judges = {"likeness": jury.judge(request.judges.likeness)}
    if text := jury.text_of(request.judges):
        judges["clip_likeness"] = jury.judge(text)
    found: dict[str, list[float]] = {name: [] for name in judges}
    for subject in subjects:
        pictures = [reading.read(p).rgb for p in subject.references]
        for name, judge in judges.items():
            if len(pictures) > 1:
                cosine = judge.pictures(pictures) @ judge.pictures(pictures).T
                n = len(pictures)
                found[name].append(float(cosine.sum() - cosine.diagonal().sum()) / (n * (n - 1)))
    return {name: estimate(values).mean for name, values in found.items() if values}


def draw_missing(folder: Path, subject: Subject, request: DreamBenchEval, drawer: Draw) -> None:
    """Draw the prompts of a subject whose pictures are not all there."""
    jobs = {str(i): subject.prompt(i, request.token) for i in range(len(subject.prompts))}
    jobs["class"] = CLASS_PROMPT.replace("{class}", subject.class_name)
    for name, prompt in jobs.items():
        files = _pictures(folder, subject, name, request)
        if all(file.is_file() for file in files):
            continue
        files[0].parent.mkdir(parents=True, exist_ok=True)
        for file, picture in zip(files, drawer([prompt]), strict=True):
            part = file.with_suffix(".part")
            picture.save(part, "PNG")
            part.replace(file)


def _drawer(artifact: Path, request: DreamBenchEval, backend: Backend) -> Draw:
    """Draws with the model that a run trained."""
    named = exam.named_by(artifact)
    text = texts.as_trained(request.text, Text(), [str(artifact)])
    family = build.load(named.model or build.EMBEDDED, backend, text=text)
    loaded = artifacts.load(str(artifact), family)
    if loaded.edit:
        raise StudioError(
            f"{artifact} draws from reference pictures, not from a training a subject; judge it with studio eval subject."
        )

    def drawer(prompts: Sequence[str]) -> list[Image.Image]:
        wanted = Request(
            prompts=prompts, num_images=request.num_images, steps=request.steps, guidance=request.guidance
        )
        rng = Rng.single(0, 0, len(prompts) * request.num_images)
        return draw.draw(family, wanted, rng, most=request.draw_batch)

    return drawer


def _run_of(folder: Path, subject: str) -> Path:
    """The run folder of a subject: SUBJECT, or the only one that ends in -SUBJECT."""
    if (folder / subject / "config.json").is_file():
        return folder / subject
    found = [p.parent for p in sorted(folder.glob(f"*-{subject}/config.json"))]
    if len(found) != 1:
        said = (
            f"{len(found)} runs end in -{subject}" if found else f"there is no run {subject} or *-{subject}"
        )
        raise StudioError(
            f"DreamBench needs one run a subject, but in {str(folder)!r} {said}; name the runs after their subjects, "
            "or name fewer --subjects.",
            field="runs",
        )
    return found[0]


def _pictures(folder: Path, subject: Subject, prompt: str, request: DreamBenchEval) -> list[Path]:
    return [folder / subject.name / prompt / f"{seed}.png" for seed in range(request.num_images)]


def _files(folder: Path, subject: Subject, request: DreamBenchEval) -> list[Path]:
    names = [*(str(i) for i in range(len(subject.prompts))), "class"]
    return [file for name in names for file in _pictures(folder, subject, name, request)]


def _write(request: DreamBenchEval, subjects: Sequence[Subject], result: DreamBench, jury: Jury) -> None:
    text = jury.text_of(request.judges)
    judges = " and ".join(
        [jury.judge(request.judges.likeness).name, *([jury.judge(text).name] if text else [])]
    )
    values = {
        "request": serial.to_dict(request),
        "judges": judges,
        "num_subjects": len(subjects),
        "num_pictures": sum(len(s.prompts) for s in subjects) * request.num_images,
        "clip_t_reads_token": request.keep_token,
        "table": table.to_dict(result.rows),
        "subjects": result.subjects,
    }
    runs.write_text(result.folder / "scores.json", json.dumps(values, indent=1) + "\n")
    first = [_pictures(result.folder, subject, "0", request)[:1] for subject in subjects]
    page = Page(
        title="DreamBench",
        eyebrow="Benchmark of personalization",
        facts=[
            ("Subjects", str(len(subjects))),
            ("Pictures", str(values["num_pictures"])),
            ("Judges", judges),
        ],
        prompts=[f"{s.name}: {s.prompt(0, request.token)}" for s in subjects],
        columns=[Column("Reference", [s.references[:1] for s in subjects]), Column(TRAINED, first)],
        scores=result.rows,
        judges=judges,
    )
    write(page, result.folder / "report.html")
