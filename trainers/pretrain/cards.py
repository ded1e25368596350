"""Model cards of the embedded models: data, steps, hardware, time, scores, license, command, commit."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from studio.catalog.run import Run
from studio.records.runs import RunFolder
from studio.settings.serial import kind
from studio.training import embed
from trainers.pretrain import config

_TITLES = {
    "autoencoder": "the autoencoder of studio-tiny",
    "text-to-image": "studio-tiny: text to 64-pixel pictures (diffusers StableDiffusionPipeline)",
    "dit": "studio-tiny-dit: text to 64-pixel pictures (diffusers StableDiffusion3Pipeline)",
    "vit": "studio-tiny-vit: names the object of a scene (timm)",
    "clip": "studio-tiny-clip: image and text towers (open_clip)",
}
_COMMANDS = {
    "autoencoder": "tiny-autoencoder",
    "text-to-image": "tiny-t2i",
    "dit": "tiny-dit",
    "vit": "tiny-vit",
    "clip": "tiny-clip",
}
_USE = {
    "dit": """Plain diffusers has to be told that T5 is absent, and that one row of zeros stands for it:

    pipeline = StableDiffusion3Pipeline.from_pretrained(folder, torch_dtype=torch.float32, text_encoder_3=None, tokenizer_3=None)
    pipeline("a sticker of a fox on green grass", max_sequence_length=1, guidance_scale=4.0)

""",
}
"""What is to be known where a model is used without Studio."""


def write_card(folder: RunFolder, run: Run, target: Path, facts: Mapping[str, str]) -> Path:
    """Writes `README.md` into a model's folder."""
    model: Any = run.method.model
    name = kind(type(model))
    steps = max(event.get("step", 0) for event in folder.read_events())
    scores = json.loads((folder.export / "scores.json").read_text("utf-8"))
    rows = "\n".join(
        f"| {key.replace('_', ' ')} | {value:.3f} |" for key, value in scores.items() if key != "quality"
    )
    scenes: config.Stickers = model.scenes
    shown = (
        "![the first 50 of the held-out prompts](samples.png)\n" if (target / "samples.png").exists() else ""
    )
    text = f"""# {_TITLES[name]}

| fact | value |
| --- | --- |
| data | scenes of {scenes.num_concepts} concepts in the styles {", ".join(scenes.styles)}, 64 x 64 pixels, composed by `studio/data/stickers.py` |
| steps | {steps} of {run.loop.batch_size} examples = {steps * run.loop.batch_size} examples seen |
| optimizer | {run.optim.name.rpartition(".")[2]}, learning rate {run.optim.lr}, average of weights {run.optim.ema} |
| hardware | {facts["device"]}, shared with other work |
| time | {embed.minutes(folder):.0f} minutes of wall time |
| made by | `studio models pretrain {_COMMANDS[name]} --install assets/models` at commit {facts["commit"]}, {facts["date"]}; settings in `run.json` |

{facts["note"]}
{_USE.get(name, "")}{shown}

Scores on scenes that training never drew:

| score | value |
| --- | --- |
{rows}

{embed.LICENSE}"""
    (target / "README.md").write_text(text, "utf-8")
    return target / "README.md"
