"""Settings that methods and evaluations of dual encoders share. No torch."""

from typing import Annotated, Literal

from pydantic import Field

from studio.adapters.config import Adapter, Lora
from studio.data.config import Images, Labelled
from studio.data.sticker_config import Stickers
from studio.settings.config import Count, Fraction, Positive, config
from studio.settings.custom import Custom
from studio.settings.run import Hardware
from studio.vision.config import AdaptFormer

TEMPLATES = ("a photo of {a name}",)
"""What a class is called in a sentence: {name} is the name, {a name} the name with its article."""
Weight = Annotated[float, Field(ge=0)]


@config
class Captioned:
    """A folder of pictures with captions, in any layout that text-to-image training takes."""

    folder: Annotated[str, Field(min_length=1)]
    """Folder of pictures with caption files, a metadata table, or both."""
    images: Images = Images()
    """How pictures become examples."""


@config
class Scenes:
    """Captioned sticker scenes, composed on the fly."""

    scenes: Stickers = Stickers()
    """What may occur in them."""


Pairs = Labelled | Captioned | Scenes | Custom
"""Where pictures and texts come from; labelled pictures are paired with sentences about their class. What `Custom` names,
called with `size` (pixels) and the options, gives a source (`studio.contracts.batch.Source`): `len()`, and `stream(seed,
first, shard)`, an iterator over the batches of steps first, first + 1, ...: of the rows shard.start to shard.stop among
shard.total, `images` (b 3 size size) in [-1, 1] and `captions`, b texts; a function of seed and step alone."""


@config
class Whole:
    """Every weight of the towers that are not locked moves."""

    locked: Literal["none", "image", "text"] = "none"
    """Tower that stays as it is (image: LiT, arXiv 2111.07991)."""


@config
class Adapted:
    """An adapter on the towers that are not locked; all else stays."""

    adapter: Adapter = Lora()
    """The adapter."""
    locked: Literal["none", "image", "text"] = "none"
    """Tower that gets no adapter."""


@config
class Probe:
    """A linear head on the frozen image tower, started from the features of the names (Wortsman et al. 2021)."""


@config
class LpFt:
    """The head alone, then the head and the image tower (Kumar et al. 2022, arXiv 2202.10054)."""

    probe_steps: Positive = 200
    """Steps in which only the head moves (ours; the paper probes to convergence)."""
    head_lr_scale: Annotated[float, Field(gt=0)] = 100.0
    """Learning rate of the head relative to the tower's (ours: at the tower's 1e-5 a probe learns nothing)."""


@config
class Coop:
    """Learned words around the name, the towers frozen (Zhou et al. 2021, arXiv 2109.01134)."""

    phrase: str = "a photo of a"
    """Words that the context starts from, one vector a token (paper, few-shot); empty starts from random vectors."""
    length: Annotated[int, Field(ge=1, le=64)] = 16
    """Random vectors, where phrase is empty (paper: 16)."""
    per_class: bool = False
    """A context for each class instead of one for all (paper: better with many shots); knows no other names."""
    place: Literal["end", "middle", "front"] = "end"
    """Where the name stands: behind, amid or before the context (paper: end or middle)."""


@config
class Cocoop:
    """A learned context, shifted by a small net that sees the picture (Zhou et al. 2022, arXiv 2203.05557)."""

    phrase: Annotated[str, Field(min_length=1)] = "a photo of a"
    """Words that the context starts from (paper)."""
    squeeze: Positive = 16
    """The net's inner width is the width of the features divided by this (paper: 16)."""


@config
class Maple:
    """Learned tokens in several layers of both towers, the image tower's made from the text tower's (arXiv 2210.03117)."""

    phrase: Annotated[str, Field(min_length=1)] = "a photo of a"
    """Words that the first layer's context starts from; the first `length` tokens are taken (official code)."""
    length: Annotated[int, Field(ge=1, le=64)] = 2
    """Tokens a layer (paper: 2)."""
    depth: Positive = 9
    """Layers with learned tokens, from the input on; at most those that the tower has (paper: 9)."""


@config
class Promptsrc:
    """Learned tokens in both towers, held near the frozen model (Khattak et al. 2023, arXiv 2307.06948)."""

    phrase: Annotated[str, Field(min_length=1)] = "a photo of a"
    """Words that the first layer's context starts from (official code)."""
    length: Annotated[int, Field(ge=1, le=64)] = 4
    """Tokens a layer (paper: 4)."""
    depth: Positive = 9
    """Layers with learned tokens; at most those that the tower has (paper: 9)."""
    text_weight: Weight = 25.0
    """Weight of the distance to the frozen model's features of the names (paper: 25)."""
    image_weight: Weight = 10.0
    """Weight of the distance to the frozen model's features of the pictures (paper: 10)."""
    logit_weight: Weight = 1.0
    """Weight of the divergence from the frozen model's answers (official code: 1)."""


Tuning = Whole | Adapted | AdaptFormer | Probe | LpFt | Coop | Cocoop | Maple | Promptsrc
"""What of a dual encoder moves."""
Open = Whole | Adapted | AdaptFormer | Coop | Maple | Promptsrc
"""Ways of tuning that still know every name, and give one feature for it."""


@config
class Classes:
    """Which classes of labelled pictures are trained on."""

    part: Literal["all", "base"] = "all"
    """all; base: the first half, the other half being kept as new classes (the prompt-learning papers' protocol)."""
    order: Count = 0
    """0 halves the sorted names (CoOp's code); a further number is the seed of a shuffled order."""


@config
class VlmEval:
    """Measure what a dual encoder knows: names, unseen names, retrieval, composition, shifts, and what it forgot."""

    model: str = "studio-tiny-clip"
    """studio-tiny-clip, an open_clip name, a transformers model, a folder or a run."""
    before: str = "auto"
    """The model before finetuning, measured beside it; auto takes what a run started from, none takes none."""
    data: Labelled = Labelled(train="stickers")
    """Labelled pictures; the held-out ones are measured."""
    templates: tuple[str, ...] = ("a sticker of {a name}", "{a name}", "a picture of {a name}")
    """Sentences about a class, whose features are averaged; a learned prompt replaces them."""
    order: Count = 0
    """How classes are halved into base and new: 0 by sorted names, else the seed of a shuffled order."""
    num_images: Count = 1000
    """Held-out pictures to take, evenly over all of them; 0 takes all."""
    shots: tuple[Positive, ...] = ()
    """Also fit a linear head on so many training pictures a class and measure it (few-shot probe)."""
    pairs: str = ""
    """Folder of pictures with captions for retrieval; empty takes sticker scenes with the embedded model's names."""
    num_pairs: Annotated[int, Field(ge=2)] = 200
    """Pictures with captions to retrieve among."""
    num_swaps: Count = 100
    """Pairs of sticker scenes whose captions swap an attribute (the background's color); 0 leaves them out."""
    shifts: tuple[str, ...] = ()
    """Further data with the same classes or a part of them, in any form that data.train takes."""
    alphas: tuple[Fraction, ...] = (0.0, 0.25, 0.5, 0.75, 1.0)
    """Points of the line of weights between before and after (WiSE-FT); needs a run that moved weights."""
    batch_size: Positive = 128
    """Pictures at a time."""
    seed: Count = 0
    """Seed of the scenes and of the shots."""
    output: str = ""
    """Folder of the result; empty takes `vlm` in the run, or in the present folder."""
    hardware: Hardware = Hardware(precision="fp32")
