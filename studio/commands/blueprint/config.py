"""Settings and card of Blueprint. No torch, so that help answers at once."""

from studio.adapters.config import Export, Lora
from studio.catalog.cards import Card, Preset
from studio.catalog.suits import Suits
from studio.data.config import Images
from studio.diffusion.config import Denoising
from studio.records import places
from studio.settings.config import config
from studio.settings.sampling import Parts, Text


@config
class Blueprint:
    """Finetune a model's denoiser on a folder of pictures with captions."""

    data: str
    """Folder of pictures; captions found beside them are used."""
    model: str = "studio-tiny"
    """Base model: studio-tiny, studio-tiny-dit, a short name (sd15, sdxl, sd3, flux-dev), a folder, a .safetensors file, a hub name."""
    prompt: str = "a photo"
    """Caption of pictures that have none."""
    adapter: Lora = Lora(rank=4)
    """How the denoiser's weights may move (rank: diffusers' script for LoRA)."""
    parts: Parts = Parts()
    """What the model's file does not say of itself, and parts in place of its own."""
    text: Text = Text()
    """How captions become embeddings; what is drawn from the result reads prompts alike."""
    denoising: Denoising = Denoising()
    """The loss."""
    images: Images = Images()
    """How pictures are read."""
    export: Export = Export()
    """What to write at the end."""


def check(settings: Blueprint) -> None:
    """Refuse what cannot work before torch is imported.

    Raises:
        StudioError: Names the setting.
    """
    places.folder(settings.data, "data")


METHOD = Card(
    name="blueprint",
    title="Blueprint",
    summary="finetune a model on pictures with captions",
    paper="Hu et al., ICLR 2022, arXiv 2106.09685",
    config=Blueprint,
    trainer=".trainer:BlueprintTrainer",
    check=check,
    offers=("text-to-image",),
    presets={
        "tiny": Preset(
            {"loop.steps": 200, "loop.batch_size": 8, "optim.lr": 1e-3},
            suits=Suits(small=True),
            note="the embedded models; ours, as DreamBooth's",
        ),
        "lora": Preset(
            {"loop.batch_size": 4, "loop.accumulate": 4, "optim.lr": 1e-4},
            suits=Suits(small=False),
            note="diffusers' scripts for LoRA: lr 1e-4, a batch of 4 in 4 parts",
        ),
    },
)
