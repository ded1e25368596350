"""Makes a finished run the embedded captioner: `python -m trainers.captioner.install RUN [FOLDER]`.

Writes the weights in half precision, the settings of the run, and a card with scores on scenes that training never
drew. The run is `studio train captioner --model new:studio-tiny-clip`.
"""

import json
import logging
import sys
from pathlib import Path

from studio import assets, runs, serial
from studio.models.captioner import EMBEDDED, Captioner, load_captioner
from studio.models.clip import load_clip
from studio.runs import RunFolder
from trainers.captioner.config import Captioner as Settings
from trainers.captioner.exam import Exam, appraise
from trainers.captioner.reproduce import DOMAINS

log = logging.getLogger(__name__)
ROUNDS = 3
CARD = """# {name}: a captioner for {clip} (GPT-2)

| fact | value |
| --- | --- |
| what | {parameters:,} weights: a bridge from a 4 x 4 grid of patches of {clip}, and a GPT-2 of {layers} layers and width {width} |
| data | scenes of {concepts} concepts in the styles {styles}, with their captions, composed by `studio/data/stickers.py` |
| steps | {steps} of {batch} examples, AdamW, learning rate {lr:g} |
| made by | `studio train captioner --model new:{clip}`, then `python -m trainers.captioner.install RUN`; settings in `run.json` |

`studio data caption FOLDER --model {name}` writes captions beside pictures. It knows the {concepts} objects, two styles and the
backgrounds of the scenes, and says so of any picture; for photos give a public model's name.

Scores of greedy captions of {count} new scenes a column (retrieval: the right picture among 100, by {clip}):

| score | {columns} |
| --- |{bars}
{rows}

## License

The weights are Apache-2.0, as the code. The training scenes are composed from Fluent Emoji (MIT, Microsoft), Twemoji
(CC BY 4.0, Twitter and contributors) and Noto Emoji (Apache-2.0, Google); see `assets/stickers/LICENSES.md`.
"""


def install(run: str, folder: Path) -> Path:
    """Write a run's captioner with its card; gives its folder."""
    place, settings = runs.open_run(run)
    model = load_captioner(str(place.path))
    target = folder / EMBEDDED
    model.save(target, half=True)
    (target / "run.json").write_text(_portable(place), encoding="utf-8")
    small = load_captioner(str(target))
    columns = {domain: _scores(small, domain) for domain in DOMAINS}
    (target / "README.md").write_text(_card(small, settings, columns), encoding="utf-8")
    return target


def _portable(place: RunFolder) -> str:
    """The settings of a run, without where it lay."""
    values = json.loads(place.config.read_text(encoding="utf-8"))
    return json.dumps({**values, "output": "runs", "hardware": {}}, indent=2) + "\n"


def _scores(model: Captioner, domain: str) -> dict[str, float]:
    what = DOMAINS[domain]
    scenes = serial.from_dict(Settings, {"scenes": what["scenes"]}).scenes
    retrievers = {"retrieval": load_clip(model.shape.clip).requires_grad_(False)}
    exam = Exam.of(scenes, retrievers, candidates=100, rounds=ROUNDS, held_out=what["held_out"])
    texts = [text for part in exam.scenes.images.split(50) for text in model.caption(part, max_tokens=24)]
    found = appraise(exam, model, model.writer, texts)
    true = exam.retrieval("retrieval", exam.scenes.captions)
    return {**found, "retrieval by the scenes' own captions": true}


def _card(model: Captioner, run: runs.Run, columns: dict[str, dict[str, float]]) -> str:
    names = next(iter(columns.values()))
    rows = [f"| {name} | {' | '.join(f'{own[name]:.3f}' for own in columns.values())} |" for name in names]
    scenes, decoder = run.method.scenes, model.writer.decoder.config
    return CARD.format(
        name=EMBEDDED,
        clip=model.shape.clip,
        parameters=sum(value.numel() for value in model.writer.parameters()),
        layers=decoder.n_layer,
        width=decoder.n_embd,
        concepts=scenes.num_concepts,
        styles=" and ".join(scenes.styles),
        steps=run.loop.steps,
        batch=run.loop.batch_size,
        lr=run.optim.lr,
        count=100 * ROUNDS,
        columns=" | ".join(columns),
        bars=" --- |" * len(columns),
        rows="\n".join(rows),
    )


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    log.info("%s", install(sys.argv[1], Path(sys.argv[2]) if len(sys.argv) > 2 else assets.root() / "models"))
