"""Settings and card of the toy method."""

from typing import Annotated

from pydantic import Field

from studio.catalog.cards import Card, Preset
from studio.catalog.suits import Suits
from studio.settings.config import config


@config
class Toy:
    """Fit a line to noisy points."""

    model: str = "line"
    """Name of the model; `curve` takes another preset."""
    noise: Annotated[float, Field(ge=0)] = 0.1
    """Standard deviation of the noise added in the loss."""
    dropout: float = 0.0
    """Dropout, to show that the global generator is resumed too."""
    fail_at: int = 0
    """Step at which the loss is not a number; 0 never."""
    die_at: int = 0
    """Step in whose loss the process kills itself; 0 never."""


METHOD = Card(
    name="tests.toy",
    title="Toy",
    summary="fits a line",
    paper="none",
    config=Toy,
    trainer="tests.toy.trainer:ToyTrainer",
    presets={
        "curve": Preset(
            {"optim.lr": 0.5, "method.noise": 0.2}, suits=Suits(names=("curve*",)), note="for curves"
        )
    },
    hidden=True,
)
