"""Settings and card of DDPO."""

from studio.adapters.config import Lora
from studio.catalog.cards import Preset
from studio.catalog.suits import Suits
from studio.rl import config as rl
from studio.rl.cards import card
from studio.settings.config import config


@config
class Ddpo(rl.Reinforced):
    """Teach the denoiser to draw pictures that score higher."""

    adapter: Lora = Lora(rank=4)
    """LoRA on the denoiser (TRL: rank 4 on the attention)."""


METHOD = card(
    name="ddpo",
    title="DDPO",
    summary="reward-driven finetuning of the denoiser",
    paper="Black et al., ICLR 2024, arXiv 2305.13301",
    config=Ddpo,
    trainer="trainers.ddpo.trainer:DdpoTrainer",
    presets={
        "tiny": rl.TINY,
        "paper": Preset(
            {
                "method.rollouts.images": 256,
                "method.rollouts.steps": 50,
                "method.rollouts.guidance": 5.0,
                "method.ppo.fraction": 1.0,
                "method.advantage": {"kind": "prompt-advantage", "buffer": 16, "min_count": 16},
                "loop.batch_size": 64,
                "loop.accumulate": 800,
                "loop.steps": 400,
                "loop.log_every": 4,
                "loop.checkpoint_every": 40,
                "optim.lr": 3e-4,
                "optim.weight_decay": 1e-4,
                "preview.every": 40,
            },
            suits=Suits(process="discrete", small=False),
            note="official code, compressibility: 256 pictures and four updates a rollout, 100 rollouts",
        ),
        "flow": rl.FLOW,
    },
)
