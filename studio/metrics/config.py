"""Which judge scores what. No torch.

What `Custom` names, in each of the unions (images are in [-1, 1]; a function, or a class whose instances are called so):
    Backbone   (images (b 3 224 224)) -> features (b d); compared by cosine
    Scorer     (images (b 3 H W), prompts) -> scores (b), higher is better: the same that a reward is
    Diversity  (images (n 3 H W) of one prompt) -> one number, 0 for copies
"""

from typing import Annotated

from pydantic import Field

from studio.settings.config import Count, Positive, config
from studio.settings.custom import Custom, Customs
from studio.settings.run import Hardware
from studio.settings.sampling import Text


@config
class Timm:
    """A timm backbone; its pooled features are compared by cosine."""

    model: str = "efficientnet-lite0"
    """The embedded efficientnet-lite0, a timm name such as vit_small_patch16_224.dino, or a local folder."""


@config
class OpenClip:
    """A CLIP model; compares pictures with pictures and with texts by cosine."""

    model: str = "studio-tiny-clip"
    """The embedded studio-tiny-clip, an open_clip name such as ViT-B-32, or a local folder."""
    pretrained: str = ""
    """Weights of a named model: an open_clip tag such as openai, or a file; empty takes the first tag."""


@config
class NoText:
    """No judge of texts: scores that read the prompt are left out."""


TextJudge = OpenClip | NoText
"""What compares pictures with prompts."""
Backbone = Timm | OpenClip | Custom
"""What turns a picture into features."""


@config
class Likeness:
    """Mean cosine to the reference pictures of the subject (DINO score and CLIP-I of the DreamBooth paper)."""

    backbone: Backbone = Timm()
    """Judge."""


@config
class TargetLikeness:
    """Cosine to the true picture of the same prompt."""

    backbone: Backbone = Timm()
    """Judge."""


@config
class PixelCloseness:
    """Minus the mean absolute difference to the true picture of the same prompt, in 8-bit levels."""


@config
class PromptFit:
    """Cosine of picture and prompt (CLIP-T of the DreamBooth paper)."""

    backbone: OpenClip = OpenClip()
    """Judge."""


@config
class BackgroundColor:
    """1 where the corners have the plain color that the prompt names, else 0."""

    patch: Annotated[float, Field(gt=0, le=0.5)] = 0.125
    """Side of a corner patch as a part of the picture's side."""


Scorer = Likeness | TargetLikeness | PixelCloseness | PromptFit | BackgroundColor | Custom
"""What gives one number a picture."""


@config
class FeatureDiversity:
    """1 minus the mean cosine between pictures of one prompt."""

    backbone: Backbone = Timm()
    """Judge."""


@config
class Lpips:
    """Mean LPIPS distance between pictures of one prompt (DIV of the DreamBooth paper)."""

    weights: str
    """Folder with the torchvision AlexNet weights, alexnet-owt-7be5be79.pth or alexnet.safetensors."""


Diversity = FeatureDiversity | Lpips | Custom
"""What measures how different the pictures of one prompt are."""


@config
class Judges:
    """Which models judge an evaluation."""

    likeness: Backbone = Timm()
    """Compares pictures with pictures; the default was trained by others on other data than any embedded model;
    custom: (images (b 3 224 224) in [-1, 1]) -> features (b d)."""
    text: TextJudge = OpenClip()
    """Compares pictures with prompts; no-text leaves such scores out."""
    diversity: Diversity = FeatureDiversity()
    """Compares the pictures of one prompt with each other; custom: (images (n 3 H W) in [-1, 1]) -> one number."""
    custom: Customs = ()
    """Yours: (images (b 3 H W) in [-1, 1], prompts) -> scores (b), higher is better; a row of the table each. A path such as
    my.py:smile, or '{"path": ..., "options": ...}'."""
    batch_size: Annotated[int, Field(ge=1)] = 32
    """Pictures judged at a time."""


@config
class SubjectEval:
    """Measure how well an artifact draws its subject, against the model it started from."""

    artifact: str
    """Run folder, or file or folder of trained weights."""
    data: str
    """Pictures of the subject, best ones that training did not see; their captions are prompts with known answers."""
    prompts: str = ""
    """File of prompts: one a line, or JSON with "prompt" and perhaps "target"; empty takes the captions, else a few places."""
    model: str = ""
    """Base model; empty takes the one that the run names."""
    token: str = ""
    """Word that stands for the subject; empty takes the one that the run names."""
    class_word: str = ""
    """What the subject is, such as dog; empty takes the one that the run names."""
    num_images: Annotated[int, Field(ge=1)] = 4
    """Pictures a prompt; picture i has seed `seed + i`."""
    seed: Count = 0
    """Seed of the first picture of each prompt."""
    steps: Count = 0
    """Sampler steps; 0 takes what the model's card draws with (FLUX.1 schnell: 4), else 20."""
    guidance: Annotated[float, Field(ge=0)] | None = None
    """Guidance, 1 is none; empty takes the model's card's, else 4."""
    strength: float = 1.0
    """Strength of the artifact; 0 is the base model."""
    text: Text = Text()
    """How prompts become embeddings; what is left as it is by default follows the artifact's training."""
    output: str = ""
    """Folder of the result; empty takes `eval` in the run folder."""
    keep_base: str = ""
    """Folder that keeps the base model's pictures for other evaluations with the same prompts; empty keeps none."""
    draw_batch: Positive = 16
    """Pictures drawn at a time, at most; fewer of large ones."""
    judges: Judges = Judges()
    hardware: Hardware = Hardware()


@config
class DreamBenchEval:
    """The DreamBench protocol over one run folder a subject: DINO, CLIP-I, CLIP-T, PRES and DIV."""

    runs: str
    """Folder with one run folder a subject, named as the subject or ending in -SUBJECT."""
    data: str
    """Folder of the DreamBench data set (github.com/google/dreambooth, dataset/)."""
    subjects: tuple[str, ...] = ()
    """Subjects to judge; none takes all 30."""
    token: str = "sks"
    """Word that stands for the subject in training and in the prompts."""
    num_images: Positive = 4
    """Pictures a prompt (paper: 4); picture i has seed i."""
    keep_token: bool = False
    """Leave the token in the text that CLIP-T reads (follow-ups take it out)."""
    steps: Positive = 50
    """Sampler steps."""
    guidance: Annotated[float, Field(ge=0)] = 7.5
    """Classifier-free guidance scale."""
    text: Text = Text()
    """How prompts become embeddings; what is left as it is by default follows each run's training."""
    output: str = "dreambench"
    """Folder of pictures and results; what is there is not drawn again."""
    draw_batch: Positive = 4
    """Pictures drawn at a time, at most; fewer of large ones."""
    judges: Judges = Judges(
        likeness=Timm(model="vit_small_patch16_224.dino"),
        text=OpenClip(model="ViT-B-32"),
        diversity=FeatureDiversity(backbone=Timm(model="vit_small_patch16_224.dino")),
    )
    hardware: Hardware = Hardware()
