"""Settings and card of ARREST."""

from typing import Annotated, Literal

from pydantic import Field

from studio.attacks.config import Pgd
from studio.catalog.cards import Card
from studio.data.config import Labelled
from studio.settings.config import Count, Fraction, config
from studio.vision.config import Tuning, Whole
from studio.vision.presets import ATTACKED


@config
class Replay:
    """Noisy replay: a picture whose representation has drifted is shown with noise instead of under attack."""

    on: bool = True
    """Whether it happens at all."""
    degrees: Annotated[float, Field(ge=-1, le=180)] = 6.0
    """Angle phi above which a picture is replayed. The paper's value is unknown to us; calibrate: half of the median
    drift that a short run without replay reaches (6 in our toy); watch replay_rate, it should be 0.02 to 0.7."""
    trigger: Literal["clean", "adv"] = "clean"
    """Which angle to the teacher's clean representation counts: of the clean picture (ours), or of the attacked one."""
    scope: Literal["sample", "batch"] = "sample"
    """Replay single pictures, or the whole batch when more than `share` of it has drifted."""
    share: Fraction = 0.5
    """tau: share of drifted pictures that replays a batch. Its role and value in the paper are unknown to us."""


@config
class Arrest:
    """Make a trained classifier robust while its clean representations stay."""

    model: str = "studio-tiny-vit"
    """A classifier trained on this data already (the paper's standard net): a run, a folder, or studio-tiny-vit."""
    data: Labelled = Labelled(train="stickers")
    """Labelled pictures."""
    tuning: Tuning = Whole()
    """Which weights move."""
    attack: Pgd = Pgd()
    """The attack inside of training (10 steps of 2/255 at 8/255: the usual choice, the paper's is unknown to us)."""
    distillation_weight: Annotated[float, Field(ge=0)] = 0.3
    """lambda of the representation loss, in radians. The paper's value is unknown to us; try 0.1 to 10 (0.3 halved the
    drift in our toy at the same robustness)."""
    replay: Replay = Replay()
    """Noisy replay."""
    eps_warmup: Count = 0
    """Steps over which eps grows from 0 (ours: a tenth of the run for transformers)."""


METHOD = Card(
    name="arrest",
    title="ARREST",
    summary="adversarial finetuning that keeps clean accuracy: distillation of representations and noisy replay",
    paper="Suzuki et al., ICCV 2023, arXiv 2308.16454",
    config=Arrest,
    trainer="trainers.arrest.trainer:ArrestTrainer",
    offers=("classification", "robustness"),
    presets=ATTACKED,
)
