"""FLUX.2 dev: Mistral Small 3.1 reads the prompt after a fixed system message, and the network reads the guidance scale."""

from diffusers.pipelines.flux2.system_messages import SYSTEM_MESSAGE
from torch import Tensor
from typing_extensions import override

from studio.contracts.condition import Condition
from studio.models.families.flux2_base import Flux2Family
from studio.models.language import Render, chat

TRAINING_GUIDANCE = 1.0
"""What the guidance input reads when a condition names none (diffusers' README trains with 1)."""
_IMAGE = "[IMG]"
"""Stands for a picture in Mistral's template: the pipeline takes it out of prompts."""


class Flux2(Flux2Family):
    """FLUX.2 dev.

    Prompts are padded on the side that the tokenizer says, as in the maker's code; Mistral's is the left one (ComfyUI:
    `Mistral3Tokenizer`, `pad_left`). The network reads padding too, so the side matters.
    """

    @override
    def _render(self) -> Render:
        render = chat(
            self.tokenizers["tokenizer"], system=SYSTEM_MESSAGE, parts=True, add_generation_prompt=False
        )
        return lambda prompt: render(prompt.replace(_IMAGE, ""))

    @override
    def _guidance(self, x_t: Tensor, cond: Condition) -> Tensor | None:
        return cond.extra.get("guidance", x_t.new_full((len(x_t),), TRAINING_GUIDANCE)).to(x_t)
