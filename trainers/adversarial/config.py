"""Settings and card of adversarial training."""

from typing import Annotated, Literal

from pydantic import Field

from studio.attacks.config import Pgd
from studio.catalog.cards import Card
from studio.data.config import Labelled
from studio.settings.config import Count, config
from studio.vision.config import Tuning, Whole
from studio.vision.presets import ATTACKED


@config
class PgdAt:
    """Cross-entropy on attacked pictures (Madry et al. 2018, arXiv 1706.06083, eq. 2.1)."""


@config
class Trades:
    """Clean cross-entropy plus a pull of attacked pictures to the clean answer (Zhang et al. 2019, arXiv 1901.08573)."""

    beta: Annotated[float, Field(ge=0)] = 6.0
    """Weight of the pull, 1/lambda in eq. 5 (6: official code)."""


Objective = PgdAt | Trades
"""What adversarial training minimizes."""


@config
class Adversarial:
    """Train a classifier on pictures attacked anew in every step."""

    model: str = "studio-tiny-vit"
    """studio-tiny-vit, a timm name, a folder or a run; new: and a timm name starts from random weights."""
    data: Labelled = Labelled(train="stickers")
    """Labelled pictures."""
    tuning: Tuning = Whole()
    """Which weights move."""
    objective: Objective = PgdAt()
    """PGD-AT or TRADES."""
    attack: Pgd = Pgd()
    """The attack inside of training."""
    start: Literal["auto", "uniform", "near"] = "auto"
    """Start of the attack: anywhere in the ball (PGD-AT), or 0.001 N(0, 1) beside the picture (TRADES' code)."""
    eps_warmup: Count = 0
    """Steps over which eps grows from 0 (ours: a tenth of the run keeps pretrained transformers from collapsing)."""


METHOD = Card(
    name="adversarial",
    title="Adversarial training",
    summary="PGD-AT and TRADES, the baselines of every robust training method",
    paper="PGD-AT arXiv 1706.06083, TRADES arXiv 1901.08573",
    config=Adversarial,
    trainer="trainers.adversarial.trainer:AdversarialTrainer",
    offers=("classification", "robustness"),
    presets=ATTACKED,
)
