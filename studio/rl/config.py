"""Settings of rollouts and of the policy gradient. No torch."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from studio import assets
from studio.adapters.config import Export, Lora
from studio.catalog.cards import Preset
from studio.catalog.suits import Suits
from studio.errors import StudioError
from studio.rewards.config import ClipAlignment, HeldOut, Reward
from studio.settings.config import Count, Fraction, Positive, config
from studio.settings.custom import Custom
from studio.settings.sampling import Parts, Text

EMBEDDED_CLIP = "studio-tiny-clip"
Real = Annotated[float, Field(ge=0)]
Similarity = Annotated[Fraction, Field(lt=1)]
"""Lowest cosine of the prompts' embeddings to the base model's at which a run goes on; 0 never ends it."""

Part = Literal["denoiser", "text-encoder"]
"""What of a model trains; of the text encoders CLIP only, T5 never."""


@config
class Sampler:
    """How a picture is drawn to learn from."""

    steps: Positive = 20
    """Sampler steps (paper's code: 50)."""
    guidance: Real = 5.0
    """Classifier-free guidance scale, in rollouts and in the loss; 1 skips the unconditional pass (DDPO's code: 5)."""
    noise: Real = 1.0
    """Noise of the sampler: eta of DDIM (DDPO's code: 1), or a of the flow sampler (Flow-GRPO: 0.7)."""
    size: Count = 0
    """Height and width of the pictures; 0 takes the model's own."""


@config
class Rollouts(Sampler):
    """How pictures are drawn to learn from."""

    images: Positive = 64
    """Pictures a rollout, over all processes: whole batches, whole groups (DDPO's code: 256; TexForce's: 512 to 1024)."""
    group: Positive = 1
    """Pictures that share a prompt in one rollout."""
    chunk: Positive = 8
    """Pictures drawn, and given to the reward, at once."""


@config
class RolloutAdvantage:
    """Rewards standardized over the whole rollout."""


@config
class PromptAdvantage:
    """Rewards standardized by the recent rewards of the same prompt (DDPO, section 4.4); without repeats, over the rollout."""

    buffer: Positive = 32
    """Rewards remembered a prompt (DDPO's code: 16 or 32; TexForce's: 32)."""
    min_count: Positive = 16
    """Rewards a prompt needs before its own statistics are used instead of the rollout's (DDPO's code: 16)."""


@config
class GroupAdvantage:
    """Rewards less the mean of their prompt in this rollout (GRPO; needs `rollouts.group` of 2 or more)."""

    std: Literal["rollout", "group"] = "rollout"
    """Spread that they are divided by: of all rewards of the rollout (Flow-GRPO's code), or of the prompt's own (its paper)."""


Advantage = RolloutAdvantage | PromptAdvantage | GroupAdvantage | Custom
"""What `Custom` names: (rewards (b) of a rollout, prompts, a list of b) -> advantages (b); it remembers nothing between
rollouts, so that a run resumes exactly."""


@config
class Ppo:
    """Clipped policy gradient."""

    clip: Annotated[float, Field(gt=0)] = 1e-4
    """The ratio of a mean over the latent's elements moves by at most this (DDPO's code: 1e-4, for 16,384 elements)."""
    advantage_max: Annotated[float, Field(gt=0)] = 5.0
    """Largest advantage (DDPO's code: 5)."""
    epochs: Positive = 1
    """Passes over a rollout (DDPO's code: 1)."""
    last_step: bool = True
    """Learn from the last sampler step too, the one with the least noise (DDPO's code: yes; Flow-GRPO's: no)."""
    fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of each picture's steps that is learned from, drawn at random (DDPO's code: 1; TexForce's: 0.5)."""
    kl_weight: Real = 0.0
    """Weight of the divergence from the base model (DPOK, Flow-GRPO); 0 costs nothing."""


@config
class Adapted:
    """What every method of this family is told."""

    model: str = "studio-tiny"
    """Base model: studio-tiny, a short name (sd15, sdxl, sd3, flux-dev), a folder, a .safetensors file, a hub name."""
    parts: Parts = Parts()
    """What the model's file does not say of itself, and parts in place of its own."""
    text: Text = Text()
    """How prompts become embeddings; what is drawn from the result reads prompts alike."""
    export: Export = Export()
    """What to write at the end."""


@config
class Rewarded(Adapted):
    """What every method that learns from rewards is told."""

    prompts: tuple[str, ...] = ()
    """Prompts to learn on."""
    file: str = ""
    """Text file of prompts, one a line, instead of `prompts`."""
    reward: Reward = ClipAlignment()
    """What is optimized."""
    held_out: HeldOut = ClipAlignment()
    """A reward that is only watched: it falls when the optimized one is cheated."""


@config
class Reinforced(Rewarded):
    """What every method of reinforcement learning is told."""

    rollouts: Rollouts = Rollouts()
    """How pictures are drawn to learn from."""
    advantage: Advantage = PromptAdvantage()
    """What a reward is compared with (DDPO's and TexForce's code: its prompt's); custom: (rewards (b), prompts) -> (b)."""
    ppo: Ppo = Ppo()
    """The objective."""
    adapter: Lora = Lora()
    """LoRA on what trains: the policy with it off is the base model."""


TINY = Preset(
    {
        "method.rollouts.images": 64,
        "method.rollouts.steps": 10,
        "method.rollouts.chunk": 32,
        "method.ppo.fraction": 1.0,
        "method.ppo.last_step": False,
        "method.ppo.clip": 1e-3,
        "loop.batch_size": 32,
        "loop.accumulate": 4,
        "loop.steps": 60,
        "loop.log_every": 2,
        "loop.checkpoint_every": 10,
        "optim.lr": 3e-3,
        "optim.weight_decay": 1e-4,
        "preview.every": 10,
    },
    suits=Suits(small=True),
    note="the embedded models, whose last step has no noise; two updates a rollout; a clip for latents of 1,024 elements, not "
    "16,384",
)
"""What texforce and ddpo take for the embedded model."""

FLOW = Preset(
    {
        "method.rollouts.images": 256,
        "method.rollouts.size": 512,
        "method.rollouts.steps": 10,
        "method.rollouts.guidance": 4.5,
        "method.rollouts.noise": 0.7,
        "method.ppo.last_step": False,
        "method.ppo.fraction": 1.0,
        "loop.batch_size": 64,
        "loop.accumulate": 144,
        "loop.steps": 400,
        "loop.log_every": 4,
        "loop.checkpoint_every": 40,
        "optim.lr": 3e-4,
        "optim.weight_decay": 1e-4,
        "hardware.gradient_checkpointing": True,
    },
    suits=Suits(process="flow", small=False),
    note="the sampler of Flow-GRPO's config/grpo.py for SD3.5 (10 steps, noise 0.7, guidance 4.5, 512 px); the pictures a "
    "rollout and the rate of DDPO's code",
)
"""What they take for models of flow matching."""


def read_prompts(settings: Rewarded) -> tuple[str, ...]:
    """The prompts as given, or the lines of the file."""
    if not settings.file:
        return settings.prompts
    lines = Path(settings.file).expanduser().read_text(encoding="utf-8").splitlines()
    return tuple(line.strip() for line in lines if line.strip())


def check(settings: Reinforced) -> None:
    """Refuse what cannot work, before torch is imported.

    Raises:
        StudioError: Names the setting.
    """
    check_rewarded(settings)
    rollouts = settings.rollouts
    if not rollouts.noise:
        raise StudioError(
            "rollouts.noise 0 draws without chance, so that no step has a probability to learn from; choose 1.",
            field="rollouts.noise",
        )
    if rollouts.steps == 1 and not settings.ppo.last_step:
        raise StudioError(
            "rollouts.steps 1 has a last step only, and ppo.last_step False leaves it out; choose rollouts.steps 2 or more.",
            field="rollouts.steps",
        )
    check_policy(settings.adapter)


def check_rewarded(settings: Rewarded) -> None:
    """Refuse prompts and judges that are not there.

    Raises:
        StudioError: Names the setting.
    """
    if settings.file and not Path(settings.file).expanduser().is_file():
        raise StudioError(
            f"There is no file {settings.file!r}; --file takes a text file of prompts.", field="file"
        )
    if bool(settings.file) == bool(settings.prompts) or not read_prompts(settings):
        raise StudioError("Give prompts to learn on, either with --prompts or in a --file.", field="prompts")
    for name, chosen in (("reward", settings.reward), ("held_out", settings.held_out)):
        _check_judge(name, chosen)


def check_policy(adapter: Lora) -> None:
    """Refuse dropout: the policy that learns has to be the one that drew.

    Raises:
        StudioError: There is dropout.
    """
    if adapter.dropout:
        raise StudioError(
            f"adapter.dropout {adapter.dropout} would make the policy another one than drew the pictures; "
            "leave it at 0.",
            field="adapter.dropout",
        )


def _check_judge(name: str, chosen: object) -> None:
    """The embedded judge has to be there; other models are looked for when they are loaded."""
    judge = chosen.backbone.model if isinstance(chosen, ClipAlignment) else ""
    if judge == EMBEDDED_CLIP and not assets.exists(f"models/{judge}"):
        raise StudioError(
            f"The embedded judge {judge} is not in this copy of the studio; name another one with "
            f"--{name.replace('_', '-')}.backbone.model, or choose another --{name.replace('_', '-')}.",
            field=f"{name}.backbone.model",
        )
