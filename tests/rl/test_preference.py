"""Rewards of human preference: their real loading code on tiny models in the published layouts."""

import importlib.util
from pathlib import Path

import pytest
import torch
from transformers import BertTokenizerFast, BlipTextConfig, BlipVisionConfig, CLIPConfig, CLIPModel

from studio.errors import StudioError
from studio.models.tokenizers import tiny_clip_tokenizer
from studio.rewards.build import Terms
from studio.rewards.config import FaceQuality, HpsV2, ImageReward, PickScore
from studio.rewards.image_reward import MEAN, STD, Judge, renamed
from studio.rewards.preference import FaceReward
from tests.metrics.judges import clip_folder

PROMPTS = ["a dog", "a cat"]
IMAGES = torch.rand(2, 3, 40, 40, generator=torch.Generator().manual_seed(0)) * 2 - 1
PUBLISHED = {
    "blip.visual_encoder.cls_token": "vision.embeddings.class_embedding",
    "blip.visual_encoder.pos_embed": "vision.embeddings.position_embedding",
    "blip.visual_encoder.patch_embed.proj.weight": "vision.embeddings.patch_embedding.weight",
    "blip.visual_encoder.blocks.0.norm1.weight": "vision.encoder.layers.0.layer_norm1.weight",
    "blip.visual_encoder.blocks.0.attn.qkv.bias": "vision.encoder.layers.0.self_attn.qkv.bias",
    "blip.visual_encoder.blocks.0.attn.proj.weight": "vision.encoder.layers.0.self_attn.projection.weight",
    "blip.visual_encoder.blocks.0.mlp.fc1.weight": "vision.encoder.layers.0.mlp.fc1.weight",
    "blip.visual_encoder.norm.weight": "vision.post_layernorm.weight",
    "blip.text_encoder.embeddings.word_embeddings.weight": "text.embeddings.word_embeddings.weight",
    "blip.text_encoder.encoder.layer.0.crossattention.self.key.weight":
        "text.encoder.layer.0.crossattention.self.key.weight",
    "mlp.layers.7.bias": "head.7.bias",
}  # fmt: skip
"""Names in BLIP's and ImageReward's own code, and ours."""


def judge() -> Judge:
    vision = BlipVisionConfig(
        hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=1, image_size=32, patch_size=16,
        layer_norm_eps=1e-6,
    )  # fmt: skip
    text = BlipTextConfig(
        vocab_size=12, hidden_size=64, encoder_hidden_size=64, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=1, max_position_embeddings=40, is_decoder=True, use_cache=False,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Judge(vision, text).eval()


def published(model: Judge) -> dict[str, torch.Tensor]:
    """The tensors of a judge under the names that the paper's code gives them."""
    found = {}
    for key, value in model.state_dict().items():
        name = key
        for ours, theirs in (
            ("vision.embeddings.class_embedding", "blip.visual_encoder.cls_token"),
            ("vision.embeddings.position_embedding", "blip.visual_encoder.pos_embed"),
            ("vision.embeddings.patch_embedding", "blip.visual_encoder.patch_embed.proj"),
            ("vision.encoder.layers", "blip.visual_encoder.blocks"), ("vision.post_layernorm", "blip.visual_encoder.norm"),
            ("self_attn.qkv", "attn.qkv"), ("self_attn.projection", "attn.proj"), ("layer_norm", "norm"),
            ("head.", "mlp.layers."),
        ):  # fmt: skip
            name = name.replace(ours, theirs)
        found["blip.text_encoder." + name.removeprefix("text.") if name.startswith("text.") else name] = value
    return found | {
        "blip.vision_proj.weight": torch.zeros(4, 64),
        "blip.text_proj.bias": torch.zeros(4),
        "blip.text_encoder.embeddings.position_ids": torch.arange(40)[None],
    }


def tokenizer(folder: Path) -> str:
    folder.mkdir()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "dog", "cat"]
    (folder / "vocab.txt").write_text("\n".join(words))
    BertTokenizerFast(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    return str(folder)


def test_image_reward_reads_the_published_names(tmp_path: Path):
    model = judge()
    torch.save(published(model), tmp_path / "ImageReward.pt")
    chosen = ImageReward(weights=str(tmp_path / "ImageReward.pt"), tokenizer=tokenizer(tmp_path / "bert"))
    scores = Terms(chosen, "cpu")(IMAGES, PROMPTS)
    assert scores.shape == (1, 2)
    assert float((scores[0, 0] - scores[0, 1]).abs()) > 0
    assert {key: renamed({key: torch.zeros(1)}).popitem()[0] for key in PUBLISHED} == PUBLISHED


def test_image_reward_standardizes_what_the_head_says():
    model, words = (
        judge(),
        {"input_ids": torch.tensor([[2, 5, 6, 3]]), "attention_mask": torch.ones(1, 4).long()},
    )
    with torch.no_grad():
        model.head[-1].weight.zero_()
        model.head[-1].bias.fill_(MEAN + STD)
        assert model(torch.zeros(1, 3, 32, 32), words).tolist() == pytest.approx([1.0])


def test_image_reward_has_a_gradient_to_the_picture(tmp_path: Path):
    torch.save(published(judge()), tmp_path / "ImageReward.pt")
    chosen = ImageReward(weights=str(tmp_path / "ImageReward.pt"), tokenizer=tokenizer(tmp_path / "bert"))
    images = IMAGES.clone().requires_grad_()
    Terms(chosen, "cpu").graded(images, PROMPTS).sum().backward()
    assert float(images.grad.abs().sum()) > 0


def test_pick_score_is_the_cosine_of_its_clip(tmp_path: Path):
    words = tiny_clip_tokenizer()
    small = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    ends = {
        "bos_token_id": words.bos_token_id,
        "eos_token_id": words.eos_token_id,
        "pad_token_id": words.pad_token_id,
    }
    clip = CLIPModel(
        CLIPConfig(
            text_config={**small, "vocab_size": len(words), **ends},
            vision_config={**small, "image_size": 32, "patch_size": 16},
            projection_dim=16,
        )
    )
    clip.save_pretrained(tmp_path)
    words.save_pretrained(tmp_path)
    terms = Terms(PickScore(model=str(tmp_path)), "cpu")
    scores = terms(IMAGES, PROMPTS)
    assert scores.shape == (1, 2)
    assert float(scores.abs().max()) <= 1
    images = IMAGES.clone().requires_grad_()
    terms.graded(images, PROMPTS).sum().backward()
    assert float(images.grad.abs().sum()) > 0


def test_hps_reads_the_file_of_its_paper(tmp_path: Path):
    folder = clip_folder(tmp_path / "clip")
    from safetensors.torch import load_file

    values = load_file(Path(folder) / "open_clip_model.safetensors")
    torch.save({"state_dict": values, "epoch": 1}, tmp_path / "HPS_v2.1_compressed.pt")
    chosen = HpsV2(weights=str(tmp_path / "HPS_v2.1_compressed.pt"), model=folder)
    scores = Terms(chosen, "cpu")(IMAGES, PROMPTS)
    assert scores.shape == (1, 2)
    assert float(scores.abs().max()) <= 1


def test_weights_that_are_not_there_or_wrong_are_named(tmp_path: Path):
    torch.save({"a": torch.zeros(1)}, tmp_path / "wrong.pt")
    folder = clip_folder(tmp_path / "clip")
    for chosen, message in (
        (ImageReward(weights="none.pt"), r"There is no file 'none.pt'; download ImageReward.pt"),
        (HpsV2(weights="none.pt"), r"There is no file 'none.pt'; download HPS_v2"),
        (HpsV2(weights=str(tmp_path / "wrong.pt"), model=folder), "does not hold the weights"),
        (HpsV2(weights=str(tmp_path / "wrong.pt"), model="ViT-H-15"), "Unknown open_clip model"),
        (ImageReward(weights=str(tmp_path / "wrong.pt")), "does not hold ImageReward"),
        (PickScore(model=str(tmp_path / "nothing")), "PickScore .* cannot be read"),
        (ImageReward(), "is not on this machine and cannot be fetched"),
    ):
        with pytest.raises(StudioError, match=message):
            Terms(chosen, "cpu")


@pytest.mark.skipif(importlib.util.find_spec("pyiqa") is not None, reason="pyiqa is installed")
def test_face_quality_says_what_to_install():
    with pytest.raises(StudioError, match=r"needs the package pyiqa.*\[faces\]"):
        Terms(FaceQuality(), "cpu")


def test_a_picture_without_a_face_scores_0():
    def metric(images: torch.Tensor) -> torch.Tensor:
        assert float(images.mean()) > 0.5, "No face detected in the input image."
        return images.mean()

    scores = FaceReward(metric)(torch.stack([torch.ones(3, 8, 8), -torch.ones(3, 8, 8)]), PROMPTS)
    assert scores.tolist() == [1.0, 0.0]


def test_another_failure_of_the_face_metric_is_not_hidden():
    def metric(images: torch.Tensor) -> torch.Tensor:
        raise AssertionError("batch size 1 only")

    with pytest.raises(AssertionError, match="batch size 1"):
        FaceReward(metric)(torch.ones(1, 3, 8, 8), PROMPTS[:1])
