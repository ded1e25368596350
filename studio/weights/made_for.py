"""Which families a LoRA file can have been made for, told by its metadata, its keys, or the width of the text it reads."""

from collections.abc import Mapping

from torch import Tensor

from studio.catalog import families


def families_of(values: Mapping[str, Tensor], header: Mapping[str, str]) -> list[str]:
    """The families that a LoRA file can have been made for, or fits too; none if nothing tells."""
    found = _told(values, header)
    return [
        *found,
        *(card.name for card in families.cards().values() if set(card.recognize.kin) & set(found)),
    ]


def _told(values: Mapping[str, Tensor], header: Mapping[str, str]) -> list[str]:
    told = header.get("modelspec.architecture", "").split("/")[0]
    cards = families.cards().values()
    if named := [card.name for card in cards if told and told.startswith(card.names.modelspec)]:
        return named
    keys = " ".join(values)
    if marked := [card.name for card in cards if any(mark in keys for mark in card.recognize.lora)]:
        return marked
    widths = {value.shape[1] for key, value in values.items() if _reads_text(key)}
    known = (
        (card, variant.architecture["unet"])
        for card, variant in families.variants()
        if card.denoiser == "unet"
    )
    return sorted({card.name for card, unet in known if widths == {unet.config["cross_attention_dim"]}})


def _reads_text(key: str) -> bool:
    """Whether a tensor is the down factor of a U-Net layer that reads the text."""
    return (
        "attn2" in key
        and "to_k" in key
        and key.endswith(("lora_A.weight", "lora_down.weight", "lora.down.weight"))
    )
