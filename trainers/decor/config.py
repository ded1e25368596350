"""Settings and card of DECOR."""

from typing import Annotated, Literal

from pydantic import Field

from studio.catalog.cards import Card
from studio.settings.config import Count, Fraction, Positive, config
from studio.settings.sampling import READ, Text


@config
class Decor:
    """Project unwanted words out of the text embedding."""

    undesired: tuple[str, ...] = ()
    """Words or phrases whose meaning should go, such as "grass"; none changes nothing."""
    saved: str = ""
    """File of directions that `studio decor save` wrote, in place of words; it goes with the adapter it was made on."""
    strength: Annotated[float, Field(ge=0, le=1.5)] = 1.0
    """Degree of the projection (alpha): 0 leaves all, 1 removes all, above 1 reverses (ours; experimental)."""
    rows: Literal["all", "words", "pad"] = "all"
    """Which rows of the prompt change; all but the begin token (paper: every row; leaving begin out is ours)."""
    max_rank: Positive = 8
    """Directions to remove at the most (ours)."""
    energy: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the unwanted rows' energy that the directions must hold, at least (ours)."""
    carriers: tuple[str, ...] = ("a photo of a {}", "a picture of a {}", "{}")
    """Prompts around an unwanted word: several are more robust than one (ours)."""
    end_row: bool = False
    """Also count the end row of the carriers, which sums up the phrase (ours)."""
    protect: tuple[str, ...] = ()
    """Words that must stay: their part is taken out of the unwanted directions first (ours, an extension)."""
    warn_overlap: Fraction = 0.8
    """Warn when the unwanted directions hold more than this of a word of the prompt (ours)."""

    def __post_init__(self) -> None:
        """Check rules between fields."""
        if self.saved and self.undesired:
            raise ValueError(
                f"saved {self.saved!r} and undesired {self.undesired} name two sources; give one"
            )


@config
class Components:
    """Take a prompt's embedding apart into its components, and draw with and without some of them."""

    prompt: str
    """The prompt."""
    model: str = ""
    """Model; empty takes the one that the first artifact was trained on, or the embedded one."""
    artifact: tuple[str, ...] = ()
    """Runs or files to load first: a trained text encoder has other components."""
    text: Text = READ
    """How prompts become embeddings; what is left as it is by default follows the first artifact's training."""
    take: tuple[int, ...] = ()
    """Components to draw alone and to leave out, counted from 0; none draws nothing."""
    shown: Positive = 8
    """Components in the table."""
    num_images: Positive = 3
    """Pictures of each kind."""
    seed: Count = 0
    """Seed of the first picture."""
    steps: Positive = 20
    """Sampler steps."""
    guidance: Annotated[float, Field(ge=0)] = 4.0
    """Classifier-free guidance."""
    output: str = "components"
    """Folder of the plot and the pictures."""


@config
class Suggest:
    """Find words that most training captions share and a new prompt does not have."""

    data: str
    """Folder of the training pictures with their captions."""
    prompt: str
    """The new prompt."""


@config
class Save:
    """Fit the directions of unwanted words and write them, to keep them with an adapter."""

    edit: Decor
    """The words and how they become directions."""
    output: str
    """File to write, such as RUN/decor.safetensors."""
    model: str = ""
    """Model; empty takes the one that the first artifact was trained on, or the embedded one."""
    artifact: tuple[str, ...] = ()
    """Runs or files to load first: the words are encoded with them on."""
    text: Text = READ
    """How prompts become embeddings; what is left as it is by default follows the first artifact's training."""


METHOD = Card(
    name="decor",
    title="DECOR",
    summary="take unwanted words out of a prompt's embedding while sampling",
    paper="Jang et al. 2024, arXiv 2412.09169",
    config=Decor,
    edit="trainers.decor.edit:DecorEdit",
    offers=("edit",),
)
