"""Image classifiers from timm with their normalization inside, so that no caller can normalize twice or not at all.

Pictures are in [0, 1] at every border here. Axes: `b` pictures, `c h w` picture, `n` patches, `d` width, `k` classes.
"""

import copy
import difflib
import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import timm
import torch
from einops import rearrange
from jaxtyping import Float
from timm.models import save_for_hf
from torch import Tensor, nn

from studio import assets
from studio.errors import StudioError, unknown
from studio.models import adaptformer

log = logging.getLogger(__name__)

EMBEDDED = ("studio-tiny-vit",)
_VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 4}
TINY: dict[str, tuple[str, dict[str, Any]]] = {
    "tiny:vit": ("vit_tiny_patch16_224", _VIT),
    "tiny:deit": ("deit_tiny_distilled_patch16_224", _VIT),
    "tiny:beit": ("beit_base_patch16_224", _VIT),
    "tiny:swin": (
        "swin_tiny_patch4_window7_224",
        {
            "img_size": 32,
            "patch_size": 4,
            "embed_dim": 24,
            "depths": (1, 1),
            "num_heads": (2, 4),
            "window_size": 4,
        },
    ),
    "tiny:resnet": ("resnet10t", {}),
    "small:vit": ("vit_tiny_patch16_224", {**_VIT, "patch_size": 4, "embed_dim": 96, "depth": 4}),
}
"""Random models from configuration, 32 px: seconds to train on small pictures, and for tests."""


class Classifier(nn.Module):
    """A timm model that takes pictures in [0, 1] and gives logits.

    Attributes:
        network: The timm model; it alone has weights.
        classes: Names of the classes in the order of the logits; empty where the model does not name them.
        size: Side of the pictures in pixels.
        fresh_head: Whether the head is new and has learned nothing.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, network: nn.Module, name: str, classes: Sequence[str] = (), *, fresh_head: bool = False
    ) -> None:
        super().__init__()
        facts = timm.data.resolve_model_data_config(network)
        self.network, self.name, self.classes, self.fresh_head = network, name, tuple(classes), fresh_head
        self.size, self.mean_std = int(facts["input_size"][-1]), (tuple(facts["mean"]), tuple(facts["std"]))
        for key, value in zip(("mean", "std"), self.mean_std, strict=True):
            self.register_buffer(key, rearrange(torch.tensor(value), "c -> c 1 1"), persistent=False)

    @property
    def num_classes(self) -> int:
        """Number of logits."""
        return int(self.network.num_classes)  # pyright: ignore[reportArgumentType]  # every timm model has it

    def normalize(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """What the network itself sees."""
        return (images - self.mean) / self.std

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k"]:
        """Logits of pictures in [0, 1]."""
        return self.network(self.normalize(images))

    def features(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
        """The representation that feeds the head."""
        network: Any = self.network
        return network.forward_head(network.forward_features(self.normalize(images)), pre_logits=True)

    def classify(self, features: Float[Tensor, "b d"]) -> Float[Tensor, "b k"]:
        """Logits of representations: the head alone; a distilled model's two heads are averaged."""
        network: Any = self.network
        head = network.get_classifier()
        if isinstance(head, tuple):
            raise StudioError(
                f"{self.name!r} reads two representations with two heads; this method needs a model with one head, "
                "such as a plain vit_* model.",
                field="model",
            )
        return head(features)

    def tokens(self, images: Float[Tensor, "b c h w"]) -> Tensor:
        """Patch embeddings, before the class token and the positions: E(x), (b, n, d); Swin keeps (b, h, w, d)."""
        return patch_embed(self)(self.normalize(images))

    def from_tokens(self, tokens: Tensor) -> Float[Tensor, "b k"]:
        """Logits of patch embeddings: F(u). `from_tokens(tokens(x))` is the forward pass, on every architecture."""
        blank = self.mean.expand(1, -1, self.size, self.size)
        with _output_replaced(patch_embed(self), tokens):
            return self.network(self.normalize(blank))

    def head_parameters(self) -> frozenset[str]:
        """Names of the head's parameters."""
        heads = self.network.get_classifier()  # pyright: ignore[reportCallIssue]  # every timm model has it
        found = {
            id(p) for head in (heads if isinstance(heads, tuple) else (heads,)) for p in head.parameters()
        }
        return frozenset(name for name, p in self.named_parameters() if id(p) in found)

    def check(self, images: Float[Tensor, "b c h w"]) -> None:
        """Refuse pictures that are not in [0, 1] or not of the model's size.

        Raises:
            StudioError: Says the range or the size found.
        """
        low, high = float(images.min()), float(images.max())
        if low < 0 or high > 1:
            raise StudioError(
                f"Pictures are in [{low:.2f}, {high:.2f}], but a classifier takes [0, 1] and normalizes by itself; "
                "do not normalize them before."
            )
        if tuple(images.shape[-2:]) != (self.size, self.size):
            raise StudioError(
                f"Pictures have {images.shape[-1]} x {images.shape[-2]} pixels, but {self.name!r} takes {self.size} x "
                f"{self.size}; set data.resolution to {self.size} or to 0.",
                field="data.resolution",
            )


@contextmanager
def _output_replaced(module: nn.Module, output: Tensor) -> Iterator[None]:
    handle = module.register_forward_hook(lambda *_: output)
    try:
        yield
    finally:
        handle.remove()


def patch_embed(model: Classifier) -> nn.Module:
    """The patch embedding E.

    Raises:
        StudioError: The model has none, as convolutional networks.
    """
    found = dict(model.network.named_children()).get("patch_embed")
    if found is None:
        raise StudioError(
            f"{model.name!r} ({type(model.network).__name__}) has no patch embedding, so no token noise or nullspace; "
            "choose a vision transformer such as vit_small_patch16_224.",
            field="model",
        )
    return found


def load_classifier(name: str, classes: Sequence[str] = ()) -> Classifier:
    """A classifier by name, on the CPU; a head for `classes` is made anew where the model's own are others.

    Fresh weights come from torch's global generator: call it under a seeded one.

    Args:
        name: `studio-tiny-vit`, a folder written by timm or by a run, a run folder, a timm name (its pretrained
            weights), `new:` and a timm name (random weights), or one of `TINY`.
        classes: Names of the data's classes; none keeps the model's head.

    Raises:
        StudioError: An unknown name, weights that are not there, a folder that does not say its normalization.
    """
    if name in TINY:
        architecture, settings = TINY[name]
        return _with_head(_tiny(architecture, settings, classes), name, (), classes, fresh=True)
    if folder := _folder(name):
        description = _description(folder)
        network = _create(f"local-dir:{folder}", name)
        if (folder / adaptformer.FILE).is_file():
            adaptformer.load(network, folder, name)
        return _with_head(network, name, description, classes)
    architecture = name.removeprefix("new:")
    if architecture.split(".", maxsplit=1)[0] not in timm.list_models():
        near = difflib.get_close_matches(architecture, timm.list_models(), n=5)
        raise unknown("model", name, [*EMBEDDED, *TINY, *near, "any timm name", "new:NAME"], field="model")
    network = _create(architecture, name, pretrained=architecture == name)
    return _with_head(network, name, (), classes, fresh=architecture != name)


def require_classes(model: Classifier, classes: Sequence[str]) -> None:
    """Refuse data whose classes are not the model's.

    Raises:
        StudioError: Names the first difference.
    """
    if model.num_classes != len(classes):
        raise StudioError(
            f"{model.name!r} tells {model.num_classes} classes apart, but the data has {len(classes)}; give data with the "
            "same classes, or finetune the model on this data first: studio train vit.",
            field="data",
        )
    for index, (own, given) in enumerate(zip(model.classes, classes, strict=False)):
        if own != given:
            raise StudioError(
                f"Class {index} is {own!r} in {model.name!r} but {given!r} in the data; give data with the same classes "
                "in the same order, or finetune the model on this data first: studio train vit.",
                field="data",
            )


def save_classifier(model: Classifier, network: nn.Module, folder: Path) -> list[Path]:
    """Write `network` as a folder that `timm.create_model("local-dir:...")` and `load_classifier` take.

    Args:
        model: Where the names of the classes come from.
        network: The timm model to write: the classifier's own, or a merged copy of it.
        folder: Made if it is not there.
    """
    mean, std = model.mean_std
    plain = copy.deepcopy(network).to(
        "cpu", memory_format=torch.contiguous_format
    )  # what safetensors can write
    save_for_hf(
        plain,
        str(folder),
        model_config={"label_names": list(model.classes)} if model.classes else {},
        safe_serialization=True,
        data_config={"mean": mean, "std": std},
    )
    return [folder / "config.json", folder / "model.safetensors"]


def _tiny(architecture: str, settings: dict[str, Any], classes: Sequence[str]) -> nn.Module:
    config = {"input_size": (3, 32, 32), "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
    return timm.create_model(
        architecture, num_classes=len(classes) or 10, pretrained_cfg_overlay=config, **settings
    )


def _create(source: str, name: str, *, pretrained: bool = True) -> nn.Module:
    try:
        return timm.create_model(source, pretrained=pretrained)
    except (OSError, RuntimeError, ValueError) as error:
        raise StudioError(
            f"The weights of {name!r} are not on this machine or do not fit ({str(error).splitlines()[0]}); give a "
            f"local folder, go online once, or take random weights with new:{name}.",
            field="model",
        ) from error


def _with_head(
    network: nn.Module, name: str, own: Sequence[str], classes: Sequence[str], *, fresh: bool = False
) -> Classifier:
    same = not classes or tuple(own) == tuple(classes)
    if not same and not fresh:
        log.info("%s: new head for %d classes (the model's own are others)", name, len(classes))
    if not same and (not fresh or network.num_classes != len(classes)):
        network.reset_classifier(len(classes))  # pyright: ignore[reportCallIssue]  # every timm model has it
    return Classifier(network, name, classes or own, fresh_head=fresh or not same)


def _folder(name: str) -> Path | None:
    """The folder that a name means: an embedded model's, the given one, or the export of a run."""
    given = Path(name)
    for candidate in (
        assets.root() / "models" / name,
        given,
        given / "export",
        Path("runs") / name / "export",
    ):
        if (candidate / "config.json").is_file() and (candidate / "model.safetensors").is_file():
            return candidate
    if name in EMBEDDED or given.is_dir() or "/" in name:
        raise StudioError(
            f"There is no classifier in {name!r}: no config.json and model.safetensors (as timm writes them) there or in "
            "its export folder; give such a folder, a finished run, or a timm name.",
            field="model",
        )
    return None


def _description(folder: Path) -> tuple[str, ...]:
    """Names of the classes that a timm folder gives; refuses one that does not say its normalization."""
    values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    own = values.get("pretrained_cfg", {})
    missing = [key for key in ("mean", "std", "input_size") if key not in own]
    if missing:
        raise StudioError(
            f"{str(folder)!r} does not say how pictures are normalized (no {', '.join(missing)} under pretrained_cfg in "
            "config.json); add the values it was trained with.",
            field="model",
        )
    return tuple(values.get("label_names", own.get("label_names", ())))
