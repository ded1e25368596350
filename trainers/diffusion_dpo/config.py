"""Settings and card of Diffusion-DPO."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from studio.adapters.config import Lora
from studio.catalog.cards import Card, Preset
from studio.diffusion.config import NativeTimes, Times
from studio.records import places
from studio.rl import config as rl
from studio.settings.config import Count, Fraction, config


@config
class DiffusionDpo(rl.Adapted):
    """Learn from pairs of a better and a worse picture for the same prompt; no reward is needed."""

    data: Annotated[str, Field(min_length=1)]
    """Folder of pairs: chosen/ and rejected/ with equal file names, or a table pairs.jsonl, .csv or .parquet."""
    trains: rl.Part = "denoiser"
    """What moves: the denoiser, or the text encoder."""
    adapter: Lora = Lora()
    """LoRA on what trains (paper: the whole U-Net)."""
    beta: Annotated[float, Field(gt=0)] = 5000.0
    """How strongly a pair may pull from the base model (official code: 5000; paper, section 5: 2000 for SD 1.5)."""
    times: Times = NativeTimes()
    """How noise levels are drawn (paper: uniform)."""
    caption_dropout: Literal["auto"] | Fraction = "auto"
    """Share of captions replaced by the empty one; auto: 0.2 (official code), for flow matching, which it has not, 0."""
    flip: Fraction = 0.5
    """Share of pictures mirrored, each of a pair by itself (official code: half); 0 for all that has a left and a right."""
    resolution: Count = 0
    """Side of the square that pictures are cropped to, in pixels; 0 takes the model's own."""
    held_out: str = ""
    """Folder of pairs that training does not see, for the validation loss; their captions and pictures stay as they are."""


def check(settings: DiffusionDpo) -> None:
    """Refuse what cannot work.

    Raises:
        StudioError: Names the setting.
    """
    rl.check_policy(settings.adapter)
    for field, folder in (("data", settings.data), ("held_out", settings.held_out)):
        if folder:
            places.folder(folder, field, "a folder of pairs")


def upgraded(values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a run from before captions were dropped and pictures mirrored."""
    return {**values, "method": {"caption_dropout": 0.0, "flip": 0.0, **values["method"]}}


PAPER = {
    "loop.batch_size": 2048,
    "loop.accumulate": 512,
    "loop.steps": 2000,
    "loop.checkpoint_every": 200,
    "loop.validate_every": 200,
    "optim.lr": 2.048e-5,
    "optim.schedule": "constant_with_warmup",
    "hardware.gradient_checkpointing": True,
}
PAPER_NOTE = (
    "official code on Pick-a-Pic v2, which finetunes the whole U-Net; with an adapter choose a larger rate"
)
"""What the official launchers for SD 1.5 and SDXL share."""

METHOD = Card(
    name="diffusion_dpo",
    title="Diffusion-DPO",
    summary="learns from pairs of a better and a worse picture",
    paper="Wallace et al., CVPR 2024, arXiv 2311.12908",
    config=DiffusionDpo,
    trainer="trainers.diffusion_dpo.trainer:DiffusionDpoTrainer",
    check=check,
    upgrade=upgraded,
    offers=("text-to-image", "preference"),
    presets={
        "tiny": Preset(
            {
                "method.beta": 500.0,
                "loop.batch_size": 16,
                "loop.steps": 200,
                "loop.log_every": 10,
                "optim.lr": 1e-3,
            },
            models=("studio-tiny", "tiny:*"),
            note="the embedded model",
        ),
        "paper": Preset(
            {**PAPER, "optim.warmup": 500}, models=("sd15*", "*stable-diffusion-v1*"), note=PAPER_NOTE
        ),
        "paper-sdxl": Preset(
            {**PAPER, "optim.name": "adafactor", "optim.warmup": 200},
            models=("sdxl*", "*stable-diffusion-xl*"),
            note=PAPER_NOTE,
        ),
    },
)
