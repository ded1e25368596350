"""diffusers before 0.22: LoRAs kept in attention processors, <attention>.processor.to_q_lora.down.weight."""

from collections.abc import Iterator

from studio.adapters.dialects.dialect import Dialect, Stem
from studio.adapters.dialects.place import Place, clip_name
from studio.catalog.family import FamilyCard

_LINEAR = (".to_q", ".to_k", ".to_v", ".to_out.0", ".add_k_proj", ".add_v_proj")


def spells(card: FamilyCard, component: str, where: Place) -> Iterator[Stem]:
    """Attention alone; text encoders had the same, under `self_attn.to_q_lora`."""
    for layer in where.ours:
        if component.startswith("text_encoder"):
            attention, _, end = clip_name(layer).rpartition(".")
            if attention.endswith("self_attn"):
                yield Stem(f"{component}.{attention}.to_{end.removesuffix('_proj')}_lora", (layer,))
            continue
        for end in _LINEAR:
            if layer.endswith(end):
                stem = f"{layer.removesuffix(end)}.processor{end.removesuffix('.0')}_lora"
                yield Stem(stem, (layer,))
                yield Stem(f"{component}.{stem}", (layer,))


PROCESSORS = Dialect("diffusers' attention processors", spells)
