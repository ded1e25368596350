"""Settings and card of Flow-GRPO."""

from studio.adapters.config import Lora
from studio.catalog.cards import Preset
from studio.catalog.suits import Suits
from studio.rl import config as rl
from studio.rl.cards import card
from studio.settings.config import config


@config
class FlowGrpo(rl.Reinforced):
    """Teach a flow-matching model (SD3, FLUX) to draw pictures that score higher."""

    model: str = "sd35"
    """Base model of flow matching: studio-tiny-dit, a short name (sd3, sd35, flux-dev), a folder, a .safetensors file, a hub name."""
    adapter: Lora = Lora(rank=32, alpha=64.0)
    """LoRA on the transformer (Flow-GRPO's code: rank 32, alpha 64, on the attention)."""
    rollouts: rl.Rollouts = rl.Rollouts(images=96, group=24, steps=10, guidance=4.5, noise=0.7)
    """How pictures are drawn to learn from (Flow-GRPO's code: 10 steps, noise 0.7, 24 pictures a prompt)."""
    advantage: rl.Advantage = rl.GroupAdvantage()
    """What a reward is compared with: the other pictures of its prompt."""
    ppo: rl.Ppo = rl.Ppo(last_step=False)
    """The objective (Flow-GRPO's code: all steps but the last; its weights of the divergence have another unit, see the trainer)."""


METHOD = card(
    name="flow_grpo",
    title="Flow-GRPO",
    summary="reward-driven finetuning of flow-matching models by group advantages",
    paper="Liu et al., NeurIPS 2025, arXiv 2505.05470",
    config=FlowGrpo,
    trainer="trainers.flow_grpo.trainer:FlowGrpoTrainer",
    presets={
        "flux": Preset(
            {
                "method.rollouts.images": 1152,
                "method.rollouts.size": 512,
                "method.rollouts.steps": 6,
                "method.rollouts.guidance": 3.5,
                "method.rollouts.noise": 0.9,
                "loop.batch_size": 576,
                "loop.accumulate": 960,
                "loop.log_every": 2,
                "loop.checkpoint_every": 60,
                "optim.lr": 3e-4,
                "optim.weight_decay": 1e-4,
                "optim.ema": 0.9,
                "preview.every": 60,
                "hardware.gradient_checkpointing": True,
            },
            suits=Suits(families=("flux", "flux-kontext", "flux2"), small=False),
            note="official config/grpo.py, pickscore_flux_8gpu: 6 steps, guidance 3.5 (read by the network), noise 0.9, 512 px",
        ),
        "paper": Preset(
            {
                "method.rollouts.images": 1152,
                "method.rollouts.size": 512,
                "method.ppo.kl_weight": 1e-3,
                "loop.batch_size": 576,
                "loop.accumulate": 648,
                "loop.log_every": 2,
                "loop.checkpoint_every": 60,
                "optim.lr": 3e-4,
                "optim.weight_decay": 1e-4,
                "optim.ema": 0.987,
                "preview.every": 60,
                "hardware.gradient_checkpointing": True,
            },
            suits=Suits(process="flow", small=False),
            note="official code: 48 groups of 24 pictures, 512 px, two updates a rollout; divergence as for PickScore",
        ),
        "tiny": Preset(
            {
                "method.rollouts.images": 8,
                "method.rollouts.group": 4,
                "method.rollouts.steps": 5,
                "method.adapter.rank": 4,
                "method.adapter.alpha": 8.0,
                "loop.batch_size": 8,
                "loop.steps": 10,
                "loop.log_every": 1,
                "optim.lr": 3e-3,
            },
            suits=Suits(small=True),
            note="a trial on the embedded transformer or on random weights; one update a rollout",
        ),
    },
)
