"""Settings that all finetuning of chat models with pictures shares. No torch."""

from typing import Annotated, Literal

from pydantic import Field

from studio.adapters.config import Adapter, Lora
from studio.catalog.cards import Preset
from studio.catalog.suits import Suits
from studio.settings.config import Count, Positive, config
from studio.settings.run import Hardware

Part = Literal["vision", "projector", "language"]


@config
class Chat:
    """What every method that trains a chat model on conversations is told."""

    data: Annotated[str, Field(min_length=1)]
    """A .json or .jsonl file of conversations in sharegpt form, as LLaVA has them."""
    pictures: str = ""
    """Folder that the names of pictures start from; empty takes the file's."""
    model: Annotated[str, Field(min_length=1)] = "llava-hf/llava-onevision-qwen2-0.5b-ov-hf"
    """A hub name or folder of an image-text-to-text model of transformers, or a run; tiny:llava is random."""
    template: str = ""
    """A chat template (Jinja file) to take for the model's own, or for the one that it lacks; it is exported with the model."""
    adapter: Adapter = Lora(layers="linear")
    """How the language model may move."""
    trains: Annotated[tuple[Part, ...], Field(min_length=1)] = ("projector", "language")
    """Parts that move: vision, projector, language; projector and vision move whole (LLaVA: the last two)."""
    projector_lr_scale: Annotated[float, Field(gt=0)] = 1.0
    """Learning rate of the projector relative to the language model's (0.1 beside LoRA: LLaVA-1.5's mm_projector_lr)."""
    vision_lr_scale: Annotated[float, Field(gt=0)] = 0.2
    """Learning rate of the vision tower relative to the others (LLaVA-OneVision, CAFe: 2e-6 to 1e-5)."""
    max_pixels: Count = 0
    """Most pixels of a picture; a larger one is shrunk, or cut into fewer tiles; 0 leaves what the model was made for."""
    max_tokens: Count = 0
    """Longest conversation in tokens, pictures included (LLaVA-1.5: 2048); 0 is what the model was made for."""
    too_long: Literal["stop", "cut"] = "stop"
    """What a longer one does: stop names it, cut drops its end."""
    preview_tokens: Positive = 64
    """Longest answer in previews, in tokens."""

    def __post_init__(self) -> None:
        """Check rules between fields."""
        if len(set(self.trains)) < len(self.trains):
            raise ValueError(f"trains names a part twice: {', '.join(self.trains)}; name each once")


PRESETS = {
    "llava": Preset(
        {"optim.lr": 1e-5, "optim.schedule": "cosine", "optim.warmup": 30, "optim.weight_decay": 0.0,
         "method.adapter.kind": "full", "loop.batch_size": 16},
        suits=Suits(small=False, chosen=("whole",)),
        note="LLaVA-OneVision and CAFe finetune all of the language model: 1e-5, cosine, 3 percent of warm-up",
    ),
    "lora": Preset(
        {"optim.lr": 2e-4, "optim.schedule": "cosine", "optim.warmup": 30, "optim.weight_decay": 0.0,
         "method.adapter.rank": 128, "method.adapter.alpha": 256.0, "method.projector_lr_scale": 0.1,
         "loop.batch_size": 16},
        suits=Suits(small=False, chosen=("adapter",)),
        note="LLaVA-1.5's LoRA script: rank 128, alpha 256, 2e-4, the projector 2e-5",
    ),
    "tiny": Preset(
        {"optim.lr": 1e-3, "loop.batch_size": 4, "loop.steps": 50},
        suits=Suits(small=True),
        note="a trial on random weights",
    ),
}  # fmt: skip
"""What published recipes take."""


@config
class Captioning:
    """Write captions beside the pictures of a folder."""

    model: Annotated[str, Field(min_length=1)] = "captioner-tiny"
    """captioner-tiny, a run or folder of the captioner, or a chat model: a hub name or folder of transformers, a run."""
    prompt: Annotated[str, Field(min_length=1)] = "Describe the picture in one sentence."
    """What a chat model is asked; a captioner needs no question."""
    prefix: str = ""
    """Text in front of every caption, such as a trigger word."""
    overwrite: bool = False
    """Replace captions that are there; otherwise only pictures without one get theirs."""
    max_tokens: Annotated[int, Field(ge=1, le=512)] = 40
    """Longest caption in tokens."""
    beams: Annotated[int, Field(ge=1, le=16)] = 1
    """Beams of the captioner's search (DiscriTune: 5; 1 takes the likeliest word each time)."""
    hardware: Hardware = Hardware()
