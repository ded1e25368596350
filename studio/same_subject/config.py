"""Settings of making same-subject sets, and of what keeps a class while one of its subjects is learned. No torch."""

import dataclasses
from typing import Annotated, Protocol, runtime_checkable

from pydantic import Field

from studio.data.config import Images
from studio.diffusion.config import Denoising
from studio.errors import StudioError
from studio.metrics.config import Judges
from studio.records import places
from studio.settings.config import Count, Fraction, Positive, config
from studio.settings.run import Hardware
from studio.settings.sampling import Parts, Text

Cosine = Annotated[float, Field(ge=-1, le=1)]


@config
class GeneratedPrior:
    """Class pictures drawn once by the untouched model, before training (the paper's prior)."""

    num_images: Positive = 100
    """Pictures (diffusers' default: 100; the paper: about 1000)."""
    steps: Count = 0
    """Sampler steps; 0 takes what the model's card draws with (FLUX.1 schnell: 4), else 50 (diffusers' scripts)."""
    guidance: Annotated[float, Field(ge=0)] | None = None
    """Guidance, 1 is none; empty takes the model's card's, else 7.5 (diffusers' scripts)."""
    scheduler: str = ""
    """Sampler; empty takes the family's own (the paper: an ancestral one)."""
    folder: str = "~/.cache/finetuning-studio/priors"
    """Where sets are kept, by base model and settings, for the next run."""

    def brief(self) -> "GeneratedPrior":
        """As little of it as holds as much memory: one picture, by one step."""
        return dataclasses.replace(self, num_images=1, steps=1)


@config
class FolderPrior:
    """Class pictures of your own."""

    folder: str
    """Folder of pictures of the class, without the subject."""


@config
class OnlinePrior:
    """No pictures: what the base model predicts for the class is the target (ours; not the paper's loss)."""


@config
class NoPrior:
    """Plain finetuning on the subject's pictures."""


Prior = GeneratedPrior | FolderPrior | OnlinePrior | NoPrior


@runtime_checkable
class SubjectSettings(Protocol):
    """Settings that every method has which learns one subject from its pictures."""

    @property
    def data(self) -> str:
        """Folder of pictures of the subject."""
        ...

    @property
    def class_word(self) -> str:
        """What the subject is, such as dog."""
        ...

    @property
    def token(self) -> str:
        """Word for the subject; empty picks a rare one."""
        ...

    @property
    def seed_of_token(self) -> int:
        """Seed of the choice of a rare word."""
        ...

    @property
    def prompt(self) -> str:
        """Caption of pictures that have none, with {token} and {class}."""
        ...

    @property
    def class_prompt(self) -> str:
        """Prompt of the class pictures, with {class}."""
        ...

    @property
    def prior(self) -> Prior:
        """What keeps the meaning of the class word."""
        ...

    @property
    def prior_weight(self) -> float:
        """Weight of the prior-preservation term; 0 needs no class pictures."""
        ...

    @property
    def denoising(self) -> Denoising:
        """The loss of each half."""
        ...

    @property
    def images(self) -> Images:
        """How pictures are read."""
        ...

    @property
    def held_out(self) -> str:
        """Folder of pictures of the subject that training does not see; empty if there is none."""
        ...


def check_subject(settings: SubjectSettings) -> None:
    """Refuse folders that are not there.

    Raises:
        StudioError: Names the setting.
    """
    class_folder = settings.prior.folder if isinstance(settings.prior, FolderPrior) else ""
    folders = {"data": settings.data, "held_out": settings.held_out, "prior.folder": class_folder}
    for field, folder in folders.items():
        if folder:
            places.folder(folder, field)


@config
class MakeSets:
    """Make sets of pictures of one subject each: draw collages, take them apart, filter, and vary backgrounds."""

    subjects: Annotated[tuple[str, ...], Field(min_length=1)]
    """What the sets show, such as 'a striped ceramic mug'; a file with one a line is read with @FILE."""
    model: str = "studio-tiny"
    """Text-to-image model (paper: SDXL)."""
    parts: Parts = Parts()
    """What the model's file does not say of itself, and parts in place of its own."""
    text: Text = Text()
    """How prompts become embeddings."""
    output: str = "sets"
    """Folder of the sets, one folder each, as `studio train jedi --data set-folder` takes them."""
    collage_prompt: str = (
        "a photo collage of {count} photos of the same {subject}, in different places and poses"
    )
    """What a collage is asked for; {count} and {subject} are filled in."""
    collages: Positive = 2
    """Collages a subject, each from its own seed."""
    rows: Positive = 2
    """Rows of panels."""
    columns: Positive = 2
    """Columns of panels (2 x 2: ours)."""
    collage_side: Count = 0
    """Pixels of a collage's side; 0 takes the model's own size, but at least 64 a panel."""
    side: Count = 0
    """Pixels of a member's side; 0 takes the model's own size."""
    color_distance: Annotated[float, Field(gt=0, lt=255)] = 45.0
    """Distance in color, of 255, from which a pixel is no background of its panel."""
    margin: Fraction = 0.2
    """Room around a cut-out subject, as a share of its size."""
    min_area: Fraction = 0.1
    """Least share of a panel that the subject covers."""
    max_area: Fraction = 0.9
    """Largest share of a panel that the subject covers: more is no subject but a scene."""
    min_likeness: Cosine = 0.6
    """Least cosine between any two members, by the judge of pictures, backgrounds masked (ours)."""
    max_likeness: Cosine = 0.95
    """Cosine from which two members are near duplicates, of which one goes (ours)."""
    min_fit: Cosine = 0.15
    """Least cosine of a member with its subject's name, by the judge of texts (ours)."""
    scenes: tuple[str, ...] = (
        "on green grass",
        "on a wooden table",
        "on a brick wall",
        "on sand",
        "on a cloudy blue sky",
        "on a red background",
    )
    """Backgrounds that are painted around the subjects, in turn; none leaves the panel's own."""
    caption: str = "a photo of a {subject} {scene}"
    """Caption of a member, and the prompt of its background."""
    steps: Positive = 20
    """Sampler steps."""
    guidance: Annotated[float, Field(ge=0)] = 5.0
    """Guidance scale."""
    seed: Count = 0
    """Seed of the first collage."""
    judges: Judges = Judges()
    """Who compares the members."""
    hardware: Hardware = Hardware()

    def __post_init__(self) -> None:
        """Refuse empty ranges."""
        if self.min_likeness >= self.max_likeness or self.min_area >= self.max_area:
            raise StudioError(
                "min_likeness and min_area must lie below max_likeness and max_area; otherwise nothing is kept.",
                field="min_likeness",
            )
        if self.rows * self.columns < 2:
            raise StudioError(
                "A collage of one panel gives no set; set --rows or --columns to 2 or more.", field="rows"
            )
