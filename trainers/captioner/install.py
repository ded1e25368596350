"""Makes a finished run the embedded captioner: `python -m trainers.captioner.install RUN [FOLDER]`.

Writes the weights in half precision, the settings of the run, and a card with scores on scenes that training never
drew. The run is `studio train captioner --model new:studio-tiny-clip`.
"""

import logging
import sys
from pathlib import Path

from studio import assets
from studio.models.captioner import EMBEDDED, Captioner, load_captioner
from studio.models.clip import load_clip
from studio.records import runs
from studio.settings import serial
from studio.training import embed
from trainers.captioner.config import Captioner as Settings
from trainers.captioner.exam import Exam, appraise
from trainers.captioner.reproduce import DOMAINS

log = logging.getLogger(__name__)
ROUNDS = 3
TEXT = """`studio data caption FOLDER --model {name}` writes captions beside pictures. It knows the {concepts} objects, two styles and the
backgrounds of the scenes, and says so of any picture; for photos give a public model's name.
"""


def install(run: str, folder: Path) -> Path:
    """Write a run's captioner with its card; gives its folder."""
    place, settings = runs.open_run(run)
    model = load_captioner(str(place.path))
    target = folder / EMBEDDED
    model.save(target, half=True)
    small = load_captioner(str(target))
    columns = {domain: _scores(small, domain) for domain in DOMAINS}
    embed.describe(place, settings, settings.loop.steps, target, _about(small, settings, columns))
    return target


def _scores(model: Captioner, domain: str) -> dict[str, float]:
    what = DOMAINS[domain]
    scenes = serial.from_dict(Settings, {"scenes": what["scenes"]}).scenes
    retrievers = {"retrieval": load_clip(model.shape.clip).requires_grad_(False)}
    exam = Exam.of(scenes, retrievers, candidates=100, rounds=ROUNDS, held_out=what["held_out"])
    texts = [text for part in exam.scenes.images.split(50) for text in model.caption(part, max_tokens=24)]
    found = appraise(exam, model, model.writer, texts)
    true = exam.retrieval("retrieval", exam.scenes.captions)
    return {**found, "retrieval by the scenes' own captions": true}


def _about(model: Captioner, run: runs.Run, columns: dict[str, dict[str, float]]) -> embed.About:
    scenes, decoder, clip = run.method.scenes, model.writer.decoder.config, model.shape.clip
    weights = sum(value.numel() for value in model.writer.parameters())
    return embed.About(
        title=f"{EMBEDDED}: a captioner for {clip} (GPT-2)",
        facts={
            "what": f"{weights:,} weights: a bridge from a 4 x 4 grid of patches of {clip}, and a GPT-2 of {decoder.n_layer} "
            f"layers and width {decoder.n_embd}",
            "data": f"scenes of {scenes.num_concepts} concepts in the styles {' and '.join(scenes.styles)}, with their captions, "
            "composed by `studio/data/stickers.py`",
        },
        command=f"`studio train captioner --model new:{clip}`, then `python -m trainers.captioner.install RUN`",
        text=TEXT.format(name=EMBEDDED, concepts=scenes.num_concepts),
        scores=_table(clip, columns),
        notes={"steps": " examples"},
    )


def _table(clip: str, columns: dict[str, dict[str, float]]) -> str:
    head = f"| score | {' | '.join(columns)} |\n| --- |{' --- |' * len(columns)}\n"
    names = next(iter(columns.values()))
    rows = [f"| {name} | {' | '.join(f'{own[name]:.3f}' for own in columns.values())} |" for name in names]
    told = f"Scores of greedy captions of {100 * ROUNDS} new scenes a column (retrieval: the right picture among 100, by {clip}):"
    return f"{told}\n\n{head}" + "\n".join(rows)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    log.info("%s", install(sys.argv[1], Path(sys.argv[2]) if len(sys.argv) > 2 else assets.root() / "models"))
