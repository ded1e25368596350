"""Settings and card of DRaFT."""

from typing import Annotated

from pydantic import Field

from studio.adapters.config import Lora
from studio.catalog.cards import Card, Preset
from studio.catalog.suits import Suits
from studio.data.config import Images
from studio.errors import StudioError
from studio.records import places
from studio.rewards.config import BLACK_BOXES, Mix, User
from studio.rl import config as rl
from studio.settings.config import Count, Fraction, Positive, config
from studio.settings.serial import kind


@config
class LastSteps:
    """The last steps of the sampler (DRaFT-K)."""

    number: Positive = 1
    """Steps (K in the paper: 1, up to all of them)."""
    copies: Count = 0
    """Copies of the finished picture, noised and denoised again, that are learned from too (DRaFT-LV: 2; needs K = 1)."""


@config
class RandomSteps:
    """A number of last steps that is drawn anew for each batch (AlignProp)."""

    mean: Annotated[float, Field(gt=0)] = 8.0
    """Mean of the normal distribution (AlignProp's code: 8 of 50)."""
    std: Annotated[float, Field(ge=0)] = 5.0
    """Its standard deviation (AlignProp's code: 5)."""


@config
class OneStep:
    """One step, drawn anew for each batch, whose clean picture is judged as it is; none follows (ReFL)."""

    earliest: Fraction = 0.75
    """First step that may be drawn, as a share of all (ReFL's code: 30 of 40)."""
    latest: Fraction = 1.0
    """Last step that may be drawn, as a share of all (ReFL's code: 39 of 40, the last)."""

    def __post_init__(self) -> None:
        """Refuse an empty range."""
        if self.earliest >= self.latest:
            raise ValueError(f"earliest {self.earliest} must be below latest {self.latest}")


@config
class Maximize:
    """Minus the reward (DRaFT)."""


@config
class Hinge:
    """What the reward lacks to a margin: pictures that are good enough no longer pull (ReFL)."""

    margin: float = 2.0
    """Margin (ReFL's code: 2)."""


@config
class Distance:
    """Distance of the reward to a target (AlignProp's aesthetic reward)."""

    target: float = 10.0
    """Target (AlignProp's code: 10)."""


@config
class Draft(rl.Rewarded):
    """Teach a model to draw pictures that score higher, by the gradient of the reward itself."""

    trains: rl.Part = "denoiser"
    """What moves: the denoiser, or the text encoder as in TexForce's models for SD-Turbo."""
    adapter: Lora = Lora()
    """LoRA on what trains."""
    through: LastSteps | RandomSteps | OneStep = LastSteps()
    """Sampler steps that the gradient passes."""
    objective: Maximize | Hinge | Distance = Maximize()
    """What is made of a reward."""
    scale: Annotated[float, Field(gt=0)] = 1.0
    """Factor of the objective (ReFL's code: 1e-3, AlignProp's: 1e-2)."""
    sampler: rl.Sampler = rl.Sampler(noise=0.0)
    """How pictures are drawn; noise 0 is DDIM without chance (AlignProp's code: 1)."""
    pretrain: str = ""
    """Folder of pictures with captions for the ordinary denoising loss beside the reward (ReFL, algorithm 1)."""
    pretrain_weight: Annotated[float, Field(ge=0)] = 1.0
    """Weight of that loss."""
    images: Images = Images()
    """How those pictures are read."""
    min_similarity: rl.Similarity = 0.7
    """The run ends once the embeddings of a trained text encoder have a lower cosine to the base model's; 0 never."""


def check(settings: Draft) -> None:
    """Refuse what cannot work.

    Raises:
        StudioError: Names the setting.
    """
    rl.check_rewarded(settings)
    rl.check_policy(settings.adapter)
    reward = settings.reward
    names = list(reward.weights) if isinstance(reward, Mix) else [kind(type(reward))]
    black = [name for name in names if name in BLACK_BOXES or ":" in name]
    if isinstance(reward, User) and not reward.differentiable:
        black = [reward.function]
    if black:
        raise StudioError(
            f"Reward {black[0]!r} has no gradient to the pictures, which draft needs; choose a differentiable one (for "
            "a function of your own set --reward.differentiable), or learn with texforce or ddpo.",
            field="reward",
        )
    _check_steps(settings)
    if settings.pretrain:
        places.folder(settings.pretrain, "pretrain", "a folder of pictures with captions")


def _check_steps(settings: Draft) -> None:
    through, steps = settings.through, settings.sampler.steps
    if not isinstance(through, LastSteps):
        return
    if through.number > steps:
        raise StudioError(
            f"through.number {through.number} is more than sampler.steps {steps}; choose --through.number {steps}, or "
            f"--sampler.steps {through.number}.",
            field="through.number",
        )
    if through.copies and through.number > 1:
        raise StudioError(
            f"through.copies {through.copies} noises finished pictures for their last step alone; set --through.number "
            "1, or --through.copies 0.",
            field="through.copies",
        )


METHOD = Card(
    name="draft",
    title="DRaFT",
    summary="reward-driven finetuning by the reward's own gradient: DRaFT-K, DRaFT-LV, ReFL, AlignProp",
    paper="Clark et al., ICLR 2024, arXiv 2309.17400; ReFL: arXiv 2304.05977; AlignProp: arXiv 2310.03739",
    config=Draft,
    trainer="trainers.draft.trainer:DraftTrainer",
    check=check,
    offers=("text-to-image", "reward"),
    presets={
        "tiny": Preset(
            {
                "method.sampler.steps": 10,
                "loop.batch_size": 16,
                "loop.steps": 60,
                "loop.log_every": 2,
                "optim.lr": 1e-3,
                "optim.weight_decay": 1e-4,
                "preview.every": 20,
            },
            suits=Suits(small=True),
            note="the embedded model; DRaFT-1",
        ),
        "draft": Preset(
            {
                "method.sampler.steps": 50,
                "method.sampler.guidance": 7.5,
                "method.adapter.rank": 8,
                "loop.batch_size": 16,
                "loop.accumulate": 4,
                "loop.steps": 2000,
                "optim.lr": 2.5e-4,
                "preview.every": 100,
                "hardware.gradient_checkpointing": True,
            },
            suits=Suits(process="discrete", small=False),
            note="ours, for DRaFT-1: the paper came without code",
        ),
        "flow": Preset(
            {
                "method.sampler.steps": 10,
                "method.sampler.guidance": 4.5,
                "method.sampler.size": 512,
                "method.adapter.rank": 32,
                "loop.batch_size": 16,
                "loop.accumulate": 16,
                "loop.steps": 2000,
                "optim.lr": 3e-4,
                "optim.weight_decay": 1e-4,
                "preview.every": 100,
                "hardware.gradient_checkpointing": True,
            },
            suits=Suits(process="flow", small=False),
            note="ours, for DRaFT-1: sampler, rank and rate of Flow-GRPO's config/grpo.py for SD3.5",
        ),
        "refl": Preset(
            {
                "method.sampler.steps": 40,
                "method.sampler.guidance": 1.0,
                "method.sampler.noise": 1.0,
                "method.through": {"kind": "one-step"},
                "method.objective": {"kind": "hinge"},
                "method.scale": 1e-3,
                "loop.batch_size": 64,
                "loop.accumulate": 32,
                "loop.steps": 100,
                "optim.lr": 1e-5,
                "optim.ema": 0.9999,
                "hardware.gradient_checkpointing": True,
            },
            note="ReFL's code, which finetunes the whole U-Net; with an adapter choose a larger rate",
        ),
        "alignprop": Preset(
            {
                "method.sampler.steps": 50,
                "method.sampler.noise": 1.0,
                "method.through": {"kind": "random-steps"},
                "method.scale": 1e-2,
                "method.adapter.rank": 4,
                "loop.batch_size": 128,
                "loop.accumulate": 32,
                "loop.steps": 25,
                "optim.lr": 1e-3,
                "optim.weight_decay": 1e-4,
                "hardware.gradient_checkpointing": True,
            },
            note="AlignProp's code for HPSv2; for an aesthetic reward with --objective distance",
        ),
    },
)
