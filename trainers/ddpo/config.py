"""Settings and card of DDPO."""

from studio.adapters.config import Lora
from studio.catalog import Card, Preset
from studio.config import config
from studio.errors import StudioError
from studio.rl import config as rl


@config
class Ddpo(rl.Reinforced):
    """Teach the denoiser to draw pictures that score higher."""

    adapter: Lora = Lora(rank=4)
    """LoRA on the denoiser (TRL: rank 4 on the attention)."""


def check(settings: Ddpo) -> None:
    """Refuse what cannot work.

    Raises:
        StudioError: Names the setting.
    """
    rl.check(settings)
    if settings.adapter.dropout:
        raise StudioError(
            f"adapter.dropout is {settings.adapter.dropout}, but a policy has to repeat itself; set it to 0.",
            field="adapter.dropout",
        )


METHOD = Card(
    name="ddpo",
    title="DDPO",
    summary="reward-driven finetuning of the denoiser",
    paper="Black et al., ICLR 2024, arXiv 2305.13301; for flow models as Flow-GRPO, arXiv 2505.05470",
    config=Ddpo,
    trainer="trainers.ddpo.trainer:DdpoTrainer",
    check=check,
    offers=("text-to-image", "reward"),
    presets={
        "tiny": Preset(
            {
                "method.rollouts.images": 64,
                "method.rollouts.steps": 10,
                "method.rollouts.chunk": 32,
                "method.ppo.fraction": 1.0,
                "loop.batch_size": 320,
                "loop.accumulate": 5,
                "loop.steps": 60,
                "loop.log_every": 2,
                "loop.checkpoint_every": 10,
                "optim.lr": 3e-3,
                "optim.weight_decay": 1e-4,
            },
            models=("studio-tiny", "tiny:*"),
            note="the embedded model; two updates a rollout",
        ),
        "flow": Preset(
            {
                "method.rollouts.images": 1152,
                "method.rollouts.group": 24,
                "method.rollouts.steps": 10,
                "method.rollouts.guidance": 4.5,
                "method.rollouts.noise": 0.7,
                "method.ppo.fraction": 0.9,
                "method.advantage": {"kind": "group-advantage"},
                "method.adapter.rank": 32,
                "method.adapter.alpha": 64.0,
                "loop.batch_size": 5184,
                "loop.accumulate": 648,
                "optim.lr": 3e-4,
            },
            models=("sd3*", "flux*", "*stable-diffusion-3*", "*FLUX*"),
            note="Flow-GRPO's code: 48 groups of 24 pictures, two updates a rollout",
        ),
    },
)
