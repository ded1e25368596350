"""XLabs for FLUX.1: LoRAs kept in the attention processors of the original model, double_blocks.0.processor.qkv_lora1."""

from collections.abc import Iterator

from studio.adapters.dialects.dialect import Dialect, Stem
from studio.adapters.dialects.place import Place
from studio.catalog.family import FamilyCard

_ENDS = {
    ".img_attn.qkv": ".processor.qkv_lora1",
    ".txt_attn.qkv": ".processor.qkv_lora2",
    ".img_attn.proj": ".processor.proj_lora1",
    ".txt_attn.proj": ".processor.proj_lora2",
    ".linear1": ".processor.qkv_lora",
    ".linear2": ".processor.proj_lora",
}


def spells(card: FamilyCard, component: str, where: Place) -> Iterator[Stem]:
    """1 is the picture's stream, 2 the text's; of a single block's first layer query, key and value alone."""
    if not where.native.startswith(("double_blocks.", "single_blocks.")):
        return
    for theirs, end in _ENDS.items():
        if where.native.endswith(theirs):
            layers = where.ours[:3] if theirs == ".linear1" else where.ours
            for start in ("", "diffusion_model."):
                yield Stem(f"{start}{where.native.removesuffix(theirs)}{end}", layers)


XLABS = Dialect("XLabs", spells)
