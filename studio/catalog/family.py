"""The card of a model family: every fact of the published models that the studio relies on, stated once. No torch.

A family is a folder `studio/models/families/<name>/`: `card.py` (read by help, presets, the planner and the app) and `model.py`
(its `Family`). Axes and units: sizes in pixels, lengths in tokens, times in [0, 1] with 1 = noise.
"""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from studio.models.base import Family

Blocks = Mapping[str, tuple[str, Mapping[str, tuple[str, ...]]]]
"""Blocks of the denoiser to their name in the original checkpoint, and of their layers: original name to ours, in order."""


@dataclass(frozen=True)
class Part:
    """One component of a pipeline: its class, and every value of its published settings that is not the class's default."""

    cls: str
    config: Mapping[str, Any] = field(default_factory=dict[str, Any])
    library: Literal["diffusers", "transformers"] = "diffusers"


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One published model of a family."""

    name: str
    """What people type: sdxl, flux-schnell."""
    hub: str
    """Its repository."""
    title: str
    architecture: Mapping[str, Part]
    """Its components by diffusers' names."""
    also: tuple[str, ...] = ()
    """Other short names and repositories of the same weights."""
    size: int = 1024
    """Side of the pictures that it was trained at."""
    steps: int = 28
    """Sampler steps that its card draws with."""
    guidance: float = 4.0
    """Guidance that its card draws with, in our scale: 1 is the conditional prediction alone."""
    distilled: bool = False
    """Few-step weights: a plain finetuning takes that from them."""
    instead: str = ""
    """The variant that people train in its place."""
    assistant: str = ""
    """Repository of a de-distilling adapter that others train it with."""
    weights: int = 0
    """Weights of its denoiser, where the published number is known exactly."""
    license: str = ""
    """Name of its license."""
    gated: bool = False
    """The hub asks to accept the license first."""
    tells: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """What tells it from the family's others: `component.setting` (or `index.setting`) to its value."""
    keys: tuple[str, ...] = ()
    """Keys that its denoiser in one file has (original or diffusers' names) and the family's others lack: any of them."""
    modelspec: str = ""
    """modelspec's architecture, where it is another than the family's."""


@dataclass(frozen=True, kw_only=True)
class Recognize:
    """What a checkpoint of this family is known by."""

    pipelines: tuple[str, ...]
    """Classes of its pipelines in diffusers; the first is the one we build."""
    tells: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """What tells it from other families of the same pipeline: `component.setting` to its value."""
    keys: tuple[str, ...] = ()
    """Keys that a denoiser in one file has (original or diffusers' names): any of them."""
    shapes: Mapping[str, tuple[int | None, ...]] = field(default_factory=dict[str, tuple[int | None, ...]])
    """Shapes of keys of the denoiser, where they are in the file; None is any size."""
    inputs: Mapping[str, int] = field(default_factory=dict[str, int])
    """Input channels of the layer that takes the latent, by its key; more are for inpainting, hints or pictures."""
    text: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    """Starts of a text encoder's keys in a file of the whole model, by component."""
    optional: tuple[str, ...] = ()
    """Text encoders that a whole model can be without."""
    lora: tuple[str, ...] = ()
    """Parts of the keys of LoRA files that only this family's have (or few others')."""
    kin: tuple[str, ...] = ()
    """Families whose LoRA files fit it too."""


@dataclass(frozen=True, kw_only=True)
class Words:
    """How prompts reach the denoiser."""

    trains: tuple[str, ...] = ()
    """Text encoders that methods train and teach words (CLIP's)."""
    rows: str = "tokenizer"
    """The tokenizer whose tokens are the condition's rows."""
    pads: Mapping[str, str] = field(default_factory=dict[str, str])
    """Pad token of each CLIP tokenizer."""
    length: int = 77
    """Tokens that the denoiser reads at most."""
    mask: bool = False
    """Prompts differ in length, and a mask says which rows there are."""
    reads: tuple[Literal["clip_skip", "long_prompts", "t5_tokens"], ...] = ()
    """Settings of text that change what the denoiser reads; the others do nothing, which is told."""
    weights: bool = True
    """(word:1.3) can be read as a weight; language models read the brackets."""


@dataclass(frozen=True, kw_only=True)
class Layers:
    """Names of the denoiser's layers."""

    auto: tuple[str, ...]
    """Ends of the names that an adapter sits on by default."""
    more: tuple[str, ...] = ()
    """What `blocks` adds."""
    entry: str
    """The layer that embeds the noisy latent."""
    entry_multiple: int = 0
    """Where it sees the tokens of all pictures in one row: what each picture's are padded to a multiple of (0: one by one)."""
    stacks: tuple[str, ...] = ()
    """Lists of repeated blocks."""
    text: Literal["none", "first", "last"] = "none"
    """Where text stands in the sequences of joint attention; none: it has layers of its own."""
    text_only: tuple[str, ...] = ()
    """Parts of the names of attention layers that see text alone, such as `context_refiner.`."""
    image_only: tuple[str, ...] = ()
    """Parts of the names of attention layers that see the picture alone, in a denoiser with joint attention."""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Noise levels, for drawing and for training."""

    sigmas: Literal["unit", "library"] = "unit"
    """What a pipeline of n steps gives the scheduler: unit, linspace(1, 1/n, n); library, the number n alone."""
    training_shift: float | None = None
    """Shift of the times that training draws; None: the scheduler's, where it is a fixed one, else none."""


@dataclass(frozen=True, kw_only=True)
class Names:
    """What other tools call the family and its layers."""

    modelspec: str
    """modelspec's architecture, without `/lora`."""
    base_version: str
    """sd-scripts' `ss_base_model_version`."""
    implementation: str = "diffusers"
    """modelspec's implementation of a LoRA in sd-scripts' keys: the code whose names they are."""
    network: str = "networks.lora"
    """sd-scripts' or musubi-tuner's `ss_network_module`."""
    text: Mapping[str, tuple[str, str]] = field(default_factory=dict[str, tuple[str, str]])
    """Text encoders that LoRA files hold: start of kohya's keys and of ComfyUI's."""
    scheme: Literal["same", "sgm", "blocks"] = "same"
    """Layers in the original checkpoint: diffusers' names, SDXL's input_blocks and output_blocks, or by `blocks`."""
    blocks: Blocks = field(default_factory=dict[str, tuple[str, Mapping[str, tuple[str, ...]]]])
    top: Mapping[str, str] = field(default_factory=dict[str, str])
    """Layers outside of all blocks: ours to the original name."""
    kohya: bool = True
    """sd-scripts or musubi-tuner train it, so that `kohya` names exist."""
    comfy: bool = True
    """ComfyUI reads LoRAs under its original names."""


@dataclass(frozen=True, kw_only=True)
class FamilyCard:
    """What a family is and where its parts are."""

    name: str
    title: str
    model: str
    """`package.module:Class` of its `Family`, imported only when a model is loaded."""
    tiny: str
    """`package.module:function` that gives a small pipeline with random weights, for `tiny:<name>`."""
    denoiser: Literal["unet", "transformer"]
    process: Literal["discrete", "flow"]
    guidance: Literal["plain", "norm", "input"] = "plain"
    """plain: two passes; norm: two, and each token keeps the conditional one's length; input: read by the network."""
    variants: tuple[Variant, ...]
    recognize: Recognize
    words: Words
    layers: Layers
    schedule: Schedule = Schedule()
    names: Names
    references: int = 0
    """Pictures that it can look at by itself while it draws (0: none)."""
    fp32: tuple[str, ...] = ()
    """Components that overflow in fp16."""
    since: str = "0.36"
    """The first diffusers that has its pipeline."""

    @property
    def pipeline(self) -> str:
        """Class of the pipeline that is built."""
        return self.recognize.pipelines[0]

    def variant(self, name: str) -> Variant | None:
        """The variant of a short name or repository."""
        return next((one for one in self.variants if name in (one.name, one.hub, *one.also)), None)

    def load_model(self) -> "type[Family]":
        """The family's class. Imports torch."""
        return load(self.model)


def load(place: str) -> Any:
    """What `package.module:name` names."""
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)
