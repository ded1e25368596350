"""What is known of a model, as lines that a person reads. No torch."""

from studio.catalog.known import Known

_KINDS = {
    "embedded": "a model of this project",
    "tiny": "a tiny model with random weights",
    "published": "a published model",
    "folder": "a diffusers folder",
    "file": "a checkpoint in one file",
    "unknown": "a hub name; what it is shows once it is downloaded",
}


def describe(known: Known) -> dict[str, str]:
    """Facts by name: what it is, its family and variant, what it predicts, its parts, what is missing, why it is refused."""
    card, variant = known.card, known.variant
    facts = {
        "it is": _KINDS[known.kind],
        "told by": known.why if known.card else "",
        "family": card.title if card else "",
        "variant": (variant.name + ("" if known.sure else " (the likeliest)")) if variant else "",
        "predicts": known.prediction + (" with zero terminal SNR" if known.zero_snr else ""),
        "parts": ", ".join(sorted(known.starts)),
        "missing": ", ".join(known.lacks) + _from(known) if known.lacks else "",
        "weights": f"the {known.weights} files" if known.weights else "",
        "license": _license(known),
        "notes": " ".join(known.notes),
        "refused": known.refusal,
    }
    return {name: text for name, text in facts.items() if text}


def _from(known: Known) -> str:
    hub = known.variant.hub if known.variant else "the published model"
    return f": taken from {hub}, or given as --parts.vae and --parts.text-encoder"


def _license(known: Known) -> str:
    variant = known.variant if known.kind == "published" else None
    if variant is None or not variant.license:
        return ""
    gate = f"; accept it at https://huggingface.co/{variant.hub} first" if variant.gated else ""
    return f"{variant.license}{gate}"
