"""What the settings of a scheduler say of a model's prediction and noise, and which of them no family can follow. No torch."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from studio.catalog.family import FamilyCard
from studio.catalog.known import Kinds

_KNOWN: Mapping[str, Kinds] = {"epsilon": "epsilon", "v_prediction": "v_prediction"}


def said(card: FamilyCard, scheduler: Mapping[str, Any]) -> tuple[Kinds, bool]:
    """What a model predicts, and whether it says that it was trained with zero terminal SNR."""
    if card.process == "flow":
        return "flow", False
    kind = _KNOWN.get(str(scheduler.get("prediction_type", "epsilon")), "")
    return kind, bool(scheduler.get("rescale_betas_zero_snr"))


def refused(folder: Path, card: FamilyCard, scheduler: Mapping[str, Any]) -> str:
    """Why a model's noise cannot be followed; empty if it can."""
    cls, kind = str(scheduler.get("_class_name", "")), scheduler.get("prediction_type")
    if not scheduler:
        return (
            f"The model {folder} cannot be loaded: its scheduler has no settings; copy or download it again."
        )
    flows = cls.startswith("FlowMatch") or kind == "flow_prediction" or bool(scheduler.get("use_flow_sigmas"))
    if card.process == "flow" and (not flows or kind not in (None, "flow_prediction")):
        return (
            f"{folder} has a scheduler ({cls}) that says {kind or 'epsilon'}, and a {card.title} is trained by flow "
            "matching; put the published scheduler_config.json in its place."
        )
    if card.process == "discrete" and cls.startswith("EDM"):
        return (
            f"{folder} is trained on EDM noise levels ({cls}, as Playground 2.5), which no family here has; give a model "
            f"of {card.title} with the usual schedule."
        )
    if card.process == "discrete" and (flows or kind not in (None, *_KNOWN)):
        return (
            f"{folder} predicts {kind or 'flow'}, and a {card.title} predicts epsilon or v_prediction here; give a model "
            "that does."
        )
    return ""
