"""What the parts of a model are, as hashes: whatever changes what a part gives changes its hash.

Of a network that is every weight and every setting, such as an autoencoder's `scaling_factor`; of a tokenizer its
vocabulary and rules; of a scheduler its settings.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from diffusers import ConfigMixin
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast, ProcessorMixin

from studio.backend.simulated.mode import is_there

BLOCKS = 256
"""Parts of a tensor of which each is summed up on its own."""
_WORD = 8
"""Bytes summed up as one number."""
_NOT_ASKED = ("architectures", "dtype", "torch_dtype", "transformers_version")
"""Settings that change nothing of what is computed."""


Part = nn.Module | PreTrainedTokenizerBase | ProcessorMixin | ConfigMixin | Mapping[str, Any]


def fingerprint(part: Part) -> str:
    """A hash of a network, a tokenizer, a processor of words and pictures, a scheduler, or plain settings."""
    digest = hashlib.sha256()
    if isinstance(part, PreTrainedTokenizerBase):
        digest.update(_rules(part).encode())
        return digest.hexdigest()
    if isinstance(part, ProcessorMixin):
        seen: Any = part.image_processor
        digest.update(
            (_rules(part.tokenizer) + json.dumps(seen.to_dict(), sort_keys=True, default=str)).encode()
        )
        return digest.hexdigest()
    digest.update(settings(part).encode())
    if isinstance(part, nn.Module):
        for key, tensor in sorted(part.state_dict().items()):
            digest.update(f"{key}{tuple(tensor.shape)}{tensor.dtype}".encode() + sums(tensor.detach()))
    return digest.hexdigest()


def settings(part: Any) -> str:
    """The settings of a part that change what it computes, as JSON; empty if it has none."""
    config: Any = part if isinstance(part, Mapping) else getattr(part, "config", {})
    values: Mapping[str, Any] = config.to_dict() if isinstance(part, PreTrainedModel) else dict(config)
    return json.dumps(_that_matter(values), sort_keys=True, default=str)


def _that_matter(values: Mapping[Any, Any]) -> dict[Any, Any]:
    """Settings without those that change nothing, also in settings of parts (a chat model's text and vision)."""
    return {
        key: _that_matter(value) if isinstance(value, Mapping) else value
        for key, value in values.items()
        if not str(key).startswith("_") and key not in _NOT_ASKED
    }


def sums(tensor: Tensor) -> bytes:
    """A sum over each of 256 parts of a tensor's bytes, and the few left over: every value counts.

    Numbers of eight bytes are added modulo 2^64, which is exact in any order and as fast as memory is read. A tensor
    of the simulated device has none.
    """
    if not is_there(tensor):
        return b""
    raw = tensor.contiguous().flatten().view(torch.uint8)
    if raw.storage_offset() % _WORD:
        raw = raw.clone()
    whole = raw.numel() // (_WORD * BLOCKS) * _WORD * BLOCKS
    blocks = raw[:whole].view(torch.int64).view(BLOCKS, -1).sum(1)
    return blocks.cpu().numpy().tobytes() + raw[whole:].cpu().numpy().tobytes()


def _rules(tokenizer: PreTrainedTokenizerBase) -> str:
    """Vocabulary and rules of a tokenizer as JSON, without the padding that a call leaves behind."""
    told: dict[str, Any] = {"length": tokenizer.model_max_length, "special": tokenizer.special_tokens_map}
    if isinstance(tokenizer, PreTrainedTokenizerFast):
        rules = json.loads(tokenizer.backend_tokenizer.to_str())
        told |= {key: value for key, value in rules.items() if key not in ("padding", "truncation")}
    else:
        told |= {"class": type(tokenizer).__name__, "vocabulary": tokenizer.get_vocab()}
    return json.dumps(told, sort_keys=True, default=str)
