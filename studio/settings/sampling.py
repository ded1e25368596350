"""Settings of loading and sampling. No torch here."""

from typing import Annotated, Literal

from pydantic import Field

from studio.errors import StudioError
from studio.settings.config import Count, Positive, config
from studio.settings.run import Hardware

SCHEDULERS = ("ddim", "ddpm", "euler", "euler_a", "heun", "lms", "pndm", "lcm", "dpm++", "dpm++_karras", "dpm++_sde",
              "unipc")  # fmt: skip
"""Samplers of families that predict eps or v, by their common names."""
FLOW_SCHEDULERS = ("flow-euler", "flow-heun", "flow-dpm++", "flow-unipc")
"""Samplers of flow-matching families."""


MAX_T5_TOKENS = 512
"""Most tokens that a model of these families was trained to read by T5."""

Side = Annotated[int, Field(ge=0, le=8192)]
"""Pixels; what is larger is a slip of the finger and would fill the memory."""


@config
class Text:
    """How captions and prompts become embeddings, in training and in drawing."""

    clip_skip: Count = 0
    """CLIP layers to leave out, counted from the one that the family reads (1: the layer before it)."""
    long_prompts: bool = False
    """Encode prompts of more than 75 tokens in parts; otherwise they are cut, with a warning."""
    weights: bool = False
    """Read (word:1.3), (word), ((word)) and [word] as weights; a backslash before a bracket keeps it."""
    t5_tokens: Annotated[int, Field(ge=0, le=MAX_T5_TOKENS)] = 0
    """Tokens T5 reads (SD3, FLUX); 0 takes the family's own: 256 for SD3, 512 for FLUX."""


READ = Text(weights=True)
"""How those who draw read text unless they say otherwise."""


@config
class Parts:
    """What a model's file cannot say of itself, and other parts in place of its own."""

    variant: str = ""
    """The published model that it was made from, such as flux-schnell; empty takes what file or folder tell, or the likeliest."""
    vae: str = ""
    """Autoencoder in place of its own: a .safetensors file, a folder or a hub name."""
    text_encoder: tuple[str, ...] = ()
    """Text encoders in place of its own: .safetensors files or folders, each for the one that it fits."""
    prediction: Literal["", "epsilon", "v_prediction"] = ""
    """What the denoiser predicts, where its settings are wrong or say nothing; empty takes what they say."""


@config
class SampleRequest:
    """Draw pictures with a model and what was trained for it."""

    prompt: tuple[str, ...]
    """What to draw; several give a row of pictures each."""
    model: str = ""
    """Model: studio-tiny, a folder, a .safetensors file or a hub name. Empty: the one the first run was trained on."""
    parts: Parts = Parts()
    """What the model's file does not say of itself, and parts in place of its own."""
    artifact: tuple[str, ...] = ()
    """Runs, LoRA files, PEFT folders, text embeddings or embedded artifacts by name to load on top, in order."""
    strength: tuple[float, ...] = ()
    """Strength of each artifact; one value is for all, none is 1 (0: the base model, 1: as trained)."""
    reference: tuple[str, ...] = ()
    """Pictures of the subject, for artifacts that look at some while they draw."""
    negative: str = ""
    """What not to draw."""
    num_images: Positive = 1
    """Pictures a prompt."""
    seed: Count = 0
    """Seed of the first picture of a prompt; the next ones count up."""
    steps: Count = 0
    """Sampler steps; 0 takes what the model's card draws with (FLUX.1 schnell: 4), else 20."""
    guidance: Annotated[float, Field(ge=0)] | None = None
    """Guidance; 1 and below make one pass without it. Empty takes what an artifact asks for, else the model's card, else 4."""
    rescale: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Guidance rescale; 0.7 suits models with zero terminal SNR."""
    scheduler: str = ""
    """Sampler, such as ddim, euler, dpm++, flow-euler; empty takes the model's own."""
    width: Side = 0
    """Width in pixels; 0 takes the model's own."""
    height: Side = 0
    """Height in pixels; 0 takes the model's own."""
    edits: tuple[str, ...] = ()
    """Changes to sampling, in order: a method's name, or its settings as JSON with the name under `kind`."""
    text: Text = READ
    """How prompts become embeddings."""
    as_trained: bool = True
    """Read text as the first artifact that tells was trained, where the flags of text are as they are by default."""
    output: str = "samples"
    """Folder for the pictures."""
    grid: bool = True
    """Also write all pictures as one, a row a prompt."""
    hardware: Hardware = Hardware()

    def __post_init__(self) -> None:
        """Check what no single field can."""
        if not any(self.prompt):
            raise StudioError(
                "There is no prompt; give one, such as --prompt 'a photo of a dog'.", field="prompt"
            )
        if "" in self.prompt:
            number = self.prompt.index("") + 1
            raise StudioError(
                f"Prompt {number} of {len(self.prompt)} is empty; write it, or leave it out.", field="prompt"
            )
        if len(self.strength) > 1 and len(self.strength) != len(self.artifact):
            raise StudioError(
                f"There are {len(self.strength)} strengths for {len(self.artifact)} artifacts; give one for all, "
                "or one each.",
                field="strength",
            )

    def strengths(self) -> tuple[float, ...]:
        """One strength an artifact."""
        given = self.strength or (1.0,)
        return given if len(given) > 1 else given * len(self.artifact)
