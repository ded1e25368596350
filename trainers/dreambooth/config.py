"""Settings and card of DreamBooth."""

from typing import Annotated

from pydantic import Field

from studio.adapters.config import Adapter, Export, Lora
from studio.catalog.cards import Card, Preset
from studio.catalog.suits import Suits
from studio.data.config import Images
from studio.diffusion.config import Denoising
from studio.records import places
from studio.same_subject.config import GeneratedPrior, Prior, check_subject
from studio.settings.config import Count, config
from studio.settings.sampling import Parts, Text
from trainers.dreambooth.presets import LARGE


@config
class DreamBooth:
    """Bind a rare word to one subject from three to five pictures."""

    data: str
    """Folder of pictures of the subject; captions found beside them are used."""
    model: str = "studio-tiny"
    """Base model: studio-tiny, studio-tiny-dit, a short name (sd15, sdxl, sd3, flux-dev), a folder, a .safetensors file, a hub name."""
    parts: Parts = Parts()
    """What the model's file does not say of itself, and parts in place of its own."""
    class_word: Annotated[str, Field(min_length=1)] = "object"
    """What the subject is, such as dog: the right word matters (paper, table 4)."""
    token: str = ""
    """Word for the subject; empty picks a rare one of the tokenizer (paper, section 3.2)."""
    prompt: str = "a photo of a {token} {class}"
    """Caption of pictures that have none."""
    class_prompt: str = "a photo of a {class}"
    """Prompt of the class pictures."""
    adapter: Adapter = Lora()
    """How the weights may move: an adapter, or full for all of them (paper)."""
    start: str = ""
    """Weights to go on from: a run, a LoRA file or a PEFT folder of the same adapter; empty starts at the base model."""
    text_encoder: bool = False
    """Train the CLIP text encoders too; T5 never trains."""
    text_encoder_lr: Annotated[float, Field(ge=0)] = 0.0
    """Learning rate of the text encoders; 0 takes the denoiser's."""
    prior: Prior = GeneratedPrior()
    """What keeps the meaning of the class word: generated, folder, online or no-prior."""
    prior_weight: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the prior-preservation term (lambda in the paper: 1)."""
    text: Text = Text()
    """How captions become embeddings; what is drawn from the result reads prompts alike."""
    denoising: Denoising = Denoising()
    """The loss of each half."""
    images: Images = Images()
    """How pictures are read."""
    held_out: str = ""
    """Folder of pictures of the subject that training does not see, for the validation loss and the scores."""
    export: Export = Export()
    """What to write at the end."""
    seed_of_token: Count = 0
    """Seed of the choice of a rare word."""


def check(settings: DreamBooth) -> None:
    """Refuse folders that are not there.

    Raises:
        StudioError: Names the setting.
    """
    check_subject(settings)
    if settings.start:
        places.artifact(settings.start, field="start")


METHOD = Card(
    name="dreambooth",
    title="DreamBooth",
    summary="teach a model one subject from three to five pictures",
    paper="Ruiz et al., CVPR 2023, arXiv 2208.12242",
    config=DreamBooth,
    trainer="trainers.dreambooth.trainer:DreamBoothTrainer",
    check=check,
    offers=("text-to-image", "subject"),
    presets={
        "tiny": Preset(
            {
                "method.prompt": "a sticker of a {token} {class}",
                "method.class_prompt": "a sticker of a {class}",
                "method.adapter": {"kind": "lora", "rank": 16, "layers": "blocks"},
                "method.text_encoder": True,
                "method.prior": {
                    "kind": "generated-prior",
                    "num_images": 48,
                    "steps": 20,
                    "guidance": 4.0,
                },
                "method.images.cache": "latents",
                "loop.steps": 200,
                "loop.batch_size": 8,
                "loop.log_every": 10,
                "optim.lr": 1e-3,
                "preview.every": 100,
                "preview.guidance": 2.0,
            },
            suits=Suits(small=True, chosen=("adapter",)),
            note="the embedded model; ours, from the sweep in docs/evidence/sweep",
        ),
        "tiny-full": Preset(
            {
                "method.prompt": "a sticker of a {token} {class}",
                "method.class_prompt": "a sticker of a {class}",
                "method.adapter": {"kind": "full"},
                "method.text_encoder": True,
                "method.prior": {"kind": "no-prior"},
                "method.images.cache": "latents",
                "loop.steps": 200,
                "loop.batch_size": 8,
                "optim.lr": 1e-4,
                "preview.every": 100,
            },
            suits=Suits(small=True, chosen=("whole",)),
            note="the embedded model, every weight; ours, from the sweep in docs/evidence/sweep",
        ),
        **LARGE,
    },
)
