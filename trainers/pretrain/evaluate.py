"""Judges the embedded models on what they never saw: `python -m trainers.pretrain.evaluate [FOLDER]`.

Prompt following is judged by an independent network: 200 prompts name a known object on a background that it never
had in training. The object counts as right if, of 20 candidate objects, the drawn picture's EfficientNet features are
nearest to the mean features of real scenes of that object. The background counts as right if the border of the
picture is nearer to real scenes of that background than to those of the 19 others.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import timm
import torch
from diffusers import AutoencoderTiny, DiffusionPipeline, StableDiffusion3Pipeline
from einops import rearrange, reduce
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms.functional import pil_to_tensor

from studio import assets
from studio.data import sticker_backgrounds as backgrounds
from studio.data.sticker_captions import with_article
from studio.data.sticker_concepts import COLORS
from studio.data.sticker_config import Stickers
from studio.data.stickers import compose, held_out_pairs, index, plan_scenes
from studio.metrics.sets import frechet
from studio.models.families.sd3.model import EMPTY_T5_ROWS_OF_SMALL_MODELS
from studio.models.files import from_folder
from trainers.pretrain.autoencoder import fit_pca, unseen_images
from trainers.pretrain.config import VARIED
from trainers.pretrain.pca import psnr
from trainers.pretrain.pictures import to_sheet
from trainers.pretrain.scorer import INPUT_PIXELS

NUM_PROMPTS = 200
NUM_CANDIDATES = 20
_PAIRS_SEED = 5
_REAL_EACH = 24
"""Real scenes whose mean features stand for an object or a background."""
_SHOWN = 50
"""Pictures on the sheet: the prompts of the first wording."""
_BORDER = 7
"""Width in pixels of the frame in which only the background shows."""


class IndependentJudge:
    """EfficientNet features of pictures; it never saw a sticker."""

    def __init__(self) -> None:
        folder = assets.path("models/efficientnet-lite0")
        self.network: nn.Module = (
            timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0).float().eval()
        )

    @torch.no_grad()
    def features(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """Unit-length features of pictures in [-1, 1]."""
        large = F.interpolate(
            images, (INPUT_PIXELS, INPUT_PIXELS), mode="bicubic", align_corners=False
        ).clamp(-1, 1)
        return torch.cat([F.normalize(self.network(part), dim=-1) for part in large.split(64)])


def border_look(images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
    """Colors of twelve patches of the frame, their spread and their fine contrast: what a background looks like."""
    top, bottom = images[..., :_BORDER, :], images[..., -_BORDER:, :]
    left, right = (side.mT for side in (images[..., :_BORDER], images[..., -_BORDER:]))
    sides = torch.stack([top, bottom, left, right], 1)
    patches = rearrange(sides, "b s c h (k w) -> b (s k) c (h w)", k=4)
    color = reduce(patches, "b p c n -> b c", "mean")
    spread = patches.mean(-1).std(1)
    contrast = patches.std(-1).mean(1)
    return torch.cat([color, 2 * spread, 2 * contrast], 1)


def held_out_prompts(scenes: Stickers, count: int = NUM_PROMPTS) -> tuple[list[str], Int[Tensor, "p three"]]:
    """Prompts of pairs that no training scene showed, in several wordings, and the pairs.

    Where there are more pairs than prompts, those asked for are spread over all objects.
    """
    pairs = held_out_pairs(scenes.num_concepts)
    if len(pairs) > count:
        pairs = pairs[torch.randperm(len(pairs), generator=torch.Generator().manual_seed(_PAIRS_SEED))]
    wordings = [
        "a sticker of {}",
        *(f"a {style} sticker of {{}}" for style in scenes.styles),
        "a picture of {}",
    ]
    prompts, rows = [], []
    for place in range(count):
        concept, kind, color = pairs[place % len(pairs)].tolist()
        text = wordings[place * len(wordings) // count].format(with_article(index()[concept]["name"]))
        prompts.append(f"{text} on {_phrase(kind, color)}")
        rows.append(pairs[place % len(pairs)])
    return prompts, torch.stack(rows)


def _phrase(kind: int, color: int) -> str:
    name = list(COLORS)[color]
    return backgrounds.phrase(backgrounds.KINDS[kind], name, name)


def real_scenes(
    scenes: Stickers, pair: tuple[int | None, int | None, int], seed: int
) -> Float[Tensor, "b 3 h w"]:
    """Real scenes of one object (on any background), or of one background (with any object)."""
    concept, kind, color = pair
    plan = plan_scenes(scenes, _REAL_EACH, torch.Generator().manual_seed(seed))
    if concept is not None:
        plan.concepts.fill_(concept)
    if kind is not None:
        plan.kinds.fill_(kind)
        plan.colors[:, 0] = color
    return compose(plan, scenes).images


def object_centroids(judge: IndependentJudge, scenes: Stickers) -> Float[Tensor, "n d"]:
    """Mean features of each object, less the mean over objects: what they share says nothing."""
    rows = [
        judge.features(real_scenes(scenes, (row, None, 0), 50 + row)).mean(0)
        for row in range(scenes.num_concepts)
    ]
    return torch.stack(rows)


def names_object(
    features: Float[Tensor, "b d"], centroids: Float[Tensor, "n d"], concepts: Int[Tensor, " b"]
) -> Float[Tensor, " b"]:
    """1 where the right object is the nearest of 20 candidates (the right one and 19 drawn by a fixed seed)."""
    center = centroids.mean(0)
    similarity = F.normalize(features - center, dim=-1) @ F.normalize(centroids - center, dim=-1).mT
    rng = torch.Generator().manual_seed(4)
    right = []
    for row, concept in enumerate(concepts.tolist()):
        order = torch.randperm(len(centroids), generator=rng)
        others = order[order != concept][: NUM_CANDIDATES - 1]
        right.append(similarity[row, concept] > similarity[row, others].max())
    return torch.stack(right).float()


def names_background(
    images: Float[Tensor, "b 3 h w"], scenes: Stickers, pairs: Int[Tensor, "b three"]
) -> Float[Tensor, " b"]:
    """1 where the border is nearest to real borders of the background asked for, of all 20 that have one look."""
    kinds = [(0, color) for color in range(len(COLORS))]
    kinds += [(2 + kind, 0) for kind in range(len(backgrounds.PLAIN_KINDS))]
    looks = [
        border_look(real_scenes(scenes, (None, kind, color), 900 + row))
        for row, (kind, color) in enumerate(kinds)
    ]
    distances = torch.stack(
        [torch.cdist(border_look(images), look).topk(5, largest=False).values.mean(1) for look in looks], 1
    )
    wanted = torch.tensor([kinds.index((kind, color)) for _, kind, color in pairs.tolist()])
    return (distances.argmin(1) == wanted).float()


def draw(
    pipeline: DiffusionPipeline, prompts: list[str], guidance: float, steps: int = 20
) -> list[Image.Image]:
    """One picture a prompt, from fixed noise."""
    pipeline.set_progress_bar_config(disable=True)
    options: dict[str, Any] = {"num_inference_steps": steps, "guidance_scale": guidance}
    if isinstance(pipeline, StableDiffusion3Pipeline):
        options["max_sequence_length"] = EMPTY_T5_ROWS_OF_SMALL_MODELS
    pictures = []
    for first in range(0, len(prompts), 20):
        part = prompts[first : first + 20]
        rng = torch.Generator().manual_seed(1000 + first)
        pictures += pipeline(part, generator=rng, **options).images
    return pictures


def to_tensor(pictures: list[Image.Image]) -> Float[Tensor, "b 3 h w"]:
    """Pictures as values in [-1, 1]."""
    return torch.stack([pil_to_tensor(picture.convert("RGB")) for picture in pictures]).float() / 127.5 - 1


def judge_autoencoder(folder: Path) -> dict[str, float]:
    """PSNR on 256 unseen scenes of all stickers, beside the patch PCA of equal size."""
    model = AutoencoderTiny.from_pretrained(folder, torch_dtype=torch.float32).eval()
    images = unseen_images(VARIED)
    with torch.no_grad():
        back = torch.cat([model(part).sample.clamp(-1, 1) for part in images.split(64)])
    linear = fit_pca(VARIED).reconstruct(images)
    return {"psnr": psnr(back, images).mean().item(), "pca_psnr": psnr(linear, images).mean().item()}


def judge_pictures(
    folder: Path, scenes: Stickers, guidance: float, sheet: Path | None = None
) -> dict[str, Any]:
    """Prompt following on 200 held-out prompts and distance to their true scenes; the same of real scenes beside it."""
    pipeline = from_folder(folder, torch.float32)
    prompts, pairs = held_out_prompts(scenes)
    pictures = draw(pipeline, prompts, guidance)
    if sheet:
        to_sheet(pictures[:_SHOWN], columns=10).save(sheet, optimize=True)
    images, judge = to_tensor(pictures), IndependentJudge()
    centroids = object_centroids(judge, scenes)
    drawn = [real_scenes(scenes, tuple(pair), 7000 + row) for row, pair in enumerate(pairs.tolist())]
    real, other = (torch.stack([each[place] for each in drawn]) for place in (0, 1))
    features, real_features = judge.features(images), judge.features(real)
    return {
        "prompts": len(prompts),
        "guidance": guidance,
        "object_top1_of_20": names_object(features, centroids, pairs[:, 0]).mean().item(),
        "background_right": names_background(images, scenes, pairs).mean().item(),
        "real_object_top1_of_20": names_object(real_features, centroids, pairs[:, 0]).mean().item(),
        "real_background_right": names_background(real, scenes, pairs).mean().item(),
        "frechet": frechet(features, real_features),
        "real_frechet": frechet(judge.features(other), real_features),
    }


def main() -> None:
    """Writes the scores of the embedded models beside a pipeline."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=assets.root() / "models" / "studio-tiny")
    parser.add_argument("--guidance", type=float, default=4.0)
    parser.add_argument("--sheet", type=Path, help="Also write the pictures as one PNG.")
    flags = parser.parse_args()
    scores = judge_autoencoder(flags.folder / "vae")
    scores |= judge_pictures(flags.folder, Stickers(), flags.guidance, flags.sheet)
    (flags.folder / "scores.json").write_text(json.dumps(scores, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
