"""The last look at a pipeline that was read: its words tell prompts apart, and it predicts what was said."""

from typing import Any

from diffusers import DiffusionPipeline

from studio.errors import StudioError
from studio.models.language import tokenizer_of

_PROMPTS = ("a photo of a dog", "two red houses by the sea")


def ready(pipeline: DiffusionPipeline, prediction: str = "") -> DiffusionPipeline:
    """The pipeline, checked.

    Args:
        pipeline: As it was read.
        prediction: What its denoiser predicts, in diffusers' words; empty for what its scheduler says.

    Raises:
        StudioError: A tokenizer takes all prompts for the same.
    """
    for name, tokenizer in pipeline.components.items():
        if name.startswith("tokenizer") and tokenizer is not None and _is_deaf(tokenizer):
            raise StudioError(
                f"The model's {name} takes every prompt for the same, as its vocabulary is not there; copy or download "
                "the model again.",
                field="model",
            )
    scheduler: Any = pipeline.components["scheduler"]
    if prediction and scheduler.config.prediction_type != prediction:
        own = dict(scheduler.config) | {"prediction_type": prediction}
        pipeline.register_modules(scheduler=type(scheduler).from_config(own))
    return pipeline


def _is_deaf(words: Any) -> bool:
    tokenizer = tokenizer_of(words)
    first, second = (tokenizer(prompt).input_ids for prompt in _PROMPTS)
    length = min(len(first), len(second))
    unknown = tokenizer.unk_token_id
    words = set(first) - set(tokenizer.all_special_ids)
    return first[:length] == second[:length] or (unknown is not None and not words and unknown in first)
