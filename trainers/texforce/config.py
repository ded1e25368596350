"""Settings and card of TexForce."""

from studio.adapters.config import Lora
from studio.catalog.cards import Preset
from studio.catalog.suits import Suits
from studio.rl import config as rl
from studio.rl.cards import card
from studio.settings.config import config


@config
class TexForce(rl.Reinforced):
    """Teach the text encoder to ask for pictures that score higher; the denoiser stays as it is."""

    adapter: Lora = Lora()
    """LoRA on the CLIP text encoders (paper's code: rank 16 on the attention)."""
    ppo: rl.Ppo = rl.Ppo(fraction=0.5)
    """The objective (paper's code: half of each picture's steps)."""
    freeze_uncond: bool = False
    """Let the unconditional prompt keep the base model's embedding (paper's code: it moves along)."""
    min_similarity: rl.Similarity = 0.7
    """The run ends once the prompts' embeddings have a lower cosine to the base model's; 0 never."""


METHOD = card(
    name="texforce",
    title="TexForce",
    summary="reward-driven finetuning of the text encoder",
    paper="Chen et al., ECCV 2024, arXiv 2311.15657",
    config=TexForce,
    trainer="trainers.texforce.trainer:TexForceTrainer",
    presets={
        "tiny": rl.TINY,
        "paper": Preset(
            {
                "method.rollouts.images": 512,
                "method.rollouts.steps": 50,
                "method.rollouts.guidance": 5.0,
                "method.ppo.fraction": 0.5,
                "method.advantage": {"kind": "prompt-advantage", "buffer": 32, "min_count": 16},
                "loop.batch_size": 8,
                "loop.accumulate": 50,
                "loop.steps": 2560,
                "loop.log_every": 8,
                "loop.checkpoint_every": 64,
                "preview.every": 64,
                "optim.lr": 3e-4,
                "optim.weight_decay": 1e-4,
                "optim.schedule": "cosine",
                "optim.warmup": 76,
            },
            suits=Suits(process="discrete", small=False),
            note="official code, one prompt: 512 pictures a rollout, an update every 8 pictures, 40 rollouts; rewards by prompt",
        ),
        "flow": rl.FLOW,
    },
)
