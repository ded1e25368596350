"""FLUX.2 klein: Qwen3 reads the prompt, and guidance is two passes, but for distilled weights."""

from typing_extensions import override

from studio.models.families.flux2_base import Flux2Family
from studio.models.language import Render, chat


class Flux2Klein(Flux2Family):
    """FLUX.2 klein and klein-base."""

    @override
    def _render(self) -> Render:
        return chat(self.tokenizers["tokenizer"], add_generation_prompt=True, enable_thinking=False)

    @property
    @override
    def reads_negative(self) -> bool:
        return not self.pipeline_config.get("is_distilled")
