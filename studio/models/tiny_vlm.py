"""A tiny LLaVA with random weights, from configuration: for tests and trials."""

from collections.abc import Callable
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

SIZE, PATCH, WIDTH = 32, 16, 32
_SPECIAL = ("<pad>", "<s>", "</s>", "<image>", "<|system|>", "<|user|>", "<|assistant|>")
_TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{% for c in m['content'] %}{% if c['type'] == 'image' %}<image>"
    "{% else %}{{ c['text'] }}{% endif %}{% endfor %}</s>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """One token a byte, and a few special ones."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    model: Any = Tokenizer(BPE(vocab={piece: n for n, piece in enumerate([*_SPECIAL, *letters])}, merges=[]))
    model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    model.decoder = decoders.ByteLevel()
    model.add_special_tokens([AddedToken(token, special=True) for token in _SPECIAL])
    return PreTrainedTokenizerFast(
        tokenizer_object=model, bos_token="<s>", eos_token="</s>", pad_token="<pad>", model_max_length=512
    )


def tiny_llava() -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """CLIP's vision tower, a projector and a Llama, each of two layers at most; weights from the global generator."""
    tokenizer = byte_tokenizer()
    sizes: dict[str, Any] = {
        "hidden_size": WIDTH, "intermediate_size": 2 * WIDTH, "num_hidden_layers": 2, "num_attention_heads": 4
    }  # fmt: skip
    text = LlamaConfig(
        vocab_size=len(tokenizer), num_key_value_heads=4, max_position_embeddings=512, **sizes,
        pad_token_id=tokenizer.pad_token_id, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    settings = LlavaConfig(
        vision_config=CLIPVisionConfig(image_size=SIZE, patch_size=PATCH, **sizes),
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=(SIZE // PATCH) ** 2,
    )
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessor(
            size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE}
        ),
        tokenizer=tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=_TEMPLATE,
    )
    return LlavaForConditionalGeneration(settings).eval(), processor


TINY: dict[str, Callable[[], tuple[LlavaForConditionalGeneration, LlavaProcessor]]] = {
    "tiny:llava": tiny_llava
}
"""Models with fresh weights, by name."""
