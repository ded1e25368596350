"""Rewards that learned from people's choices: HPSv2, PickScore, ImageReward; and face quality.

Networks and files are the published ones, read with open_clip and transformers, so that none of the packages they came
in is needed. All are differentiable in the images but face quality. Axes: `b` pictures, `d` features, `H W` image.
"""

import importlib
import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from jaxtyping import Float
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from torch import Tensor
from transformers import AutoTokenizer, CLIPModel

from studio.errors import StudioError, unknown
from studio.metrics.backbones import ClipBackbone
from studio.metrics.images import fit
from studio.rewards.config import FaceQuality, HpsV2, PickScore
from studio.rewards.networks import AlignmentReward

HPS_FILE = ("xswu/HPSv2", "HPS_v2.1_compressed.pt")


class PickScoreReward:
    """Cosine of picture and prompt in PickScore's CLIP, without its temperature."""

    def __init__(self, clip: CLIPModel, tokenizer: Any) -> None:
        config: Any = clip.config  # its parts are typed as dictionaries, too
        self._clip, self._tokenizer = clip, tokenizer
        self._size = int(config.vision_config.image_size)
        self._max_tokens = int(config.text_config.max_position_embeddings)

    def __call__(self, images: Float[Tensor, "b 3 H W"], prompts: Sequence[str]) -> Float[Tensor, " b"]:
        """Cosines in [-1, 1]."""
        device = self._clip.logit_scale.device
        words = self._tokenizer(
            list(prompts), padding=True, truncation=True, max_length=self._max_tokens, return_tensors="pt"
        ).to(device)
        seen = self._clip.vision_model(pixel_values=normalized(images.to(device), self._size))
        read = self._clip.text_model(input_ids=words.input_ids, attention_mask=words.attention_mask)
        pictures = self._clip.visual_projection(seen.pooler_output)
        texts = self._clip.text_projection(read.pooler_output)
        return F.cosine_similarity(pictures, texts, dim=-1)


class FaceReward:
    """A metric of pyiqa on one picture at a time: faces differ in number and place."""

    def __init__(self, metric: Callable[[Tensor], Tensor]) -> None:
        self._metric = metric

    def __call__(self, images: Float[Tensor, "b 3 H W"], prompts: Sequence[str]) -> Float[Tensor, " b"]:
        """The metric, and 0 where no face is found (pyiqa raises an AssertionError there)."""
        del prompts
        return torch.tensor([self._one(image) for image in images])

    def _one(self, image: Float[Tensor, "3 H W"]) -> float:
        try:
            return float(self._metric((image[None] + 1) / 2))
        except AssertionError as error:
            if "face" not in str(error).lower():
                raise
            return 0.0


def normalized(images: Float[Tensor, "b 3 H W"], size: int) -> Float[Tensor, "b 3 h w"]:
    """Pictures in [-1, 1] as OpenAI's CLIP reads them."""
    mean, std = (
        torch.tensor(values, device=images.device)[:, None, None]
        for values in (OPENAI_DATASET_MEAN, OPENAI_DATASET_STD)
    )
    return ((fit(images, size) + 1) / 2 - mean) / std


def weights_file(given: str, hub: tuple[str, str]) -> Path:
    """The file that was named, or the published one from the hub's cache.

    Raises:
        StudioError: It is not there.
    """
    if given:
        path = Path(given).expanduser()
        if not path.is_file():
            raise StudioError(
                f"There is no file {given!r}; download {hub[1]} of huggingface.co/{hub[0]} and name it as the "
                "reward's weights.",
                field="weights",
            )
        return path
    try:
        return Path(hf_hub_download(*hub))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise StudioError(
            f"{hub[1]} of huggingface.co/{hub[0]} is not on this machine and cannot be fetched; go online once, or "
            "name the file as the reward's weights.",
            field="weights",
        ) from error


def load_hps(settings: HpsV2, device: torch.device | str) -> AlignmentReward:
    """HPSv2: the cosine of its open_clip model.

    Raises:
        StudioError: The file is not there, or holds another model.
    """
    folder = (Path(settings.model) / "open_clip_config.json").is_file()
    if not folder and settings.model not in open_clip.list_models():
        raise unknown("open_clip model", settings.model, open_clip.list_models(), field="model")
    file = weights_file(settings.weights, HPS_FILE)
    source = f"local-dir:{settings.model}" if folder else settings.model
    network: Any = open_clip.create_model(source, load_weights=False)
    values = torch.load(file, map_location="cpu", weights_only=True)
    try:
        network.load_state_dict(values.get("state_dict", values))
    except RuntimeError as error:
        raise StudioError(
            f"{str(file)!r} does not hold the weights of {settings.model}; give the file of HPSv2.",
            field="weights",
        ) from error
    judge = ClipBackbone(network, open_clip.get_tokenizer(source), f"HPSv2 {settings.model}")
    return AlignmentReward(judge.to(device).float().eval().requires_grad_(False))


def load_pick_score(settings: PickScore, device: torch.device | str) -> PickScoreReward:
    """PickScore: a transformers CLIP from a folder or the hub.

    Raises:
        StudioError: It is not there.
    """
    try:
        clip: Any = CLIPModel.from_pretrained(settings.model, use_safetensors=True)
        tokenizer = AutoTokenizer.from_pretrained(settings.model)
    except (OSError, ValueError) as error:
        raise StudioError(
            f"PickScore {settings.model!r} cannot be read ({str(error).splitlines()[0]}); give a folder with a "
            "transformers CLIP and its tokenizer, or go online once.",
            field="model",
        ) from error
    return PickScoreReward(clip.to(device).float().eval().requires_grad_(False), tokenizer)


def load_face_quality(settings: FaceQuality, device: torch.device | str) -> FaceReward:
    """Face quality by pyiqa.

    Raises:
        StudioError: pyiqa is not installed, or has no such metric.
    """
    if importlib.util.find_spec("pyiqa") is None:
        raise StudioError(
            "Reward face-quality needs the package pyiqa, which is not installed; run `pip install 'finetuning-studio[faces]'`.",
            field="reward",
        )
    pyiqa: Any = importlib.import_module("pyiqa")
    if settings.metric not in pyiqa.list_models():
        raise unknown("metric of pyiqa", settings.metric, pyiqa.list_models(), field="metric")
    return FaceReward(pyiqa.create_metric(settings.metric, device=torch.device(device)))
