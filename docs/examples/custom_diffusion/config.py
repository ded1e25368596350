"""Settings and card of Custom Diffusion."""

from typing import Annotated

from pydantic import Field

from studio.adapters.config import Export
from studio.catalog.cards import Card, Preset
from studio.catalog.suits import Suits
from studio.data.config import Images
from studio.diffusion.config import Denoising
from studio.same_subject.config import GeneratedPrior, Prior, check_subject
from studio.settings.config import Count, config
from studio.settings.sampling import Text


@config
class CustomDiffusion:
    """Bind a rare word to one subject by the layers that read the text."""

    data: str
    """Folder of pictures of the subject; captions found beside them are used."""
    model: str = "studio-tiny"
    """Base model: studio-tiny, studio-tiny-dit, a short name (sd15, sdxl, sd3), a folder, a .safetensors file, a hub name."""
    class_word: Annotated[str, Field(min_length=1)] = "object"
    """What the subject is, such as dog."""
    token: str = ""
    """Word for the subject; empty picks a rare one of the tokenizer."""
    prompt: str = "photo of a {token} {class}"
    """Caption of pictures that have none (official code)."""
    class_prompt: str = "photo of a {class}"
    """Prompt of the class pictures."""
    prior: Prior = GeneratedPrior(num_images=200)
    """What keeps the meaning of the class word (paper: 200 pictures, found in LAION; here drawn, or a folder)."""
    prior_weight: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the prior-preservation term (official code: 1)."""
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


METHOD = Card(
    name="custom_diffusion",
    title="Custom Diffusion",
    summary="teach a model one subject by the keys and values of the text alone",
    paper="Kumari et al., CVPR 2023, arXiv 2212.04488",
    config=CustomDiffusion,
    trainer=".trainer:CustomDiffusionTrainer",
    check=check_subject,
    offers=("text-to-image", "subject"),
    presets={
        "paper": Preset(
            {"optim.lr": 8e-5, "loop.steps": 250, "loop.batch_size": 8},
            suits=Suits(families=("sd1", "sd2"), small=False),
            note="paper: 250 steps of 8 pictures for one concept, at 1e-5 a picture",
        ),
        "tiny": Preset(
            {
                "method.prompt": "a sticker of a {token} {class}",
                "method.class_prompt": "a sticker of a {class}",
                "method.prior": {"kind": "generated-prior", "num_images": 48, "steps": 20, "guidance": 4.0},
                "method.images.cache": "latents",
                "optim.lr": 5e-4,
                "loop.steps": 200,
                "loop.batch_size": 8,
            },
            suits=Suits(small=True),
            note="the embedded models; DreamBooth's, at a rate of our own",
        ),
    },
)
