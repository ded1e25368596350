"""Files of adapters as other tools write them, and what they do to the weights, by their own formulas.

A layer is a key of a state without `.weight`. Formulas and keys were written from the tools' documentation and files, not from
the studio's code: LoRA is alpha / rank * up @ down, LoHa and LoKr as in LyCORIS (arXiv 2309.14859), DoRA by rows.
"""

import torch

RANK, ALPHA = 4, 3.0
SCALE = ALPHA / RANK


def draw(*shape, generator, size=0.3):
    return size * torch.randn(*shape, generator=generator)


def lora(weight, g):
    down, up = draw(RANK, *weight.shape[1:], generator=g), draw(len(weight), RANK, generator=g)
    change = SCALE * (up @ down.flatten(1)).reshape(weight.shape)
    up = up[:, :, None, None] if weight.ndim == 4 else up
    return {"lora_down.weight": down, "lora_up.weight": up, "alpha": torch.tensor(ALPHA)}, change


def dora(weight, g):
    found, change = lora(weight, g)
    rows = weight.flatten(1).norm(dim=1).reshape(-1, *[1] * (weight.ndim - 1))
    magnitude = rows * (1 + draw(*rows.shape, generator=g).abs())
    whole = weight + change
    lengths = whole.flatten(1).norm(dim=1).reshape(rows.shape)
    return {**found, "dora_scale": magnitude}, magnitude * whole / lengths - weight


def dora_columns(weight, g):
    found, change = lora(weight, g)
    columns = weight.norm(dim=0, keepdim=True)
    magnitude = columns * (1 + draw(*columns.shape, generator=g).abs())
    whole = weight + change
    return {**found, "dora_scale": magnitude}, magnitude * whole / whole.norm(dim=0, keepdim=True) - weight


def loha(weight, g):
    wide = weight[0].numel()
    a, c = draw(len(weight), RANK, generator=g), draw(len(weight), RANK, generator=g)
    b, d = draw(RANK, wide, generator=g), draw(RANK, wide, generator=g)
    keys = {"hada_w1_a": a, "hada_w1_b": b, "hada_w2_a": c, "hada_w2_b": d, "alpha": torch.tensor(ALPHA)}
    return keys, (SCALE * (a @ b) * (c @ d)).reshape(weight.shape)


def lokr(weight, g):
    wide = weight[0].numel()
    rows, row = (2 if number % 2 == 0 else 1 for number in (len(weight), wide))
    first = draw(rows, row, generator=g)
    a, b = draw(len(weight) // rows, RANK, generator=g), draw(RANK, wide // row, generator=g)
    keys = {"lokr_w1": first, "lokr_w2_a": a, "lokr_w2_b": b, "alpha": torch.tensor(ALPHA)}
    return keys, (SCALE * torch.kron(first, a @ b)).reshape(weight.shape)


def diff(weight, g):
    change = draw(*weight.shape, generator=g, size=0.05)
    return {"diff": change}, change


KINDS = {"LoRA": lora, "DoRA": dora, "LoHa": loha, "LoKr": lokr, "diff": diff}

ENDS = {
    "kohya": {},
    "peft": {"lora_down.weight": "lora_A.weight", "lora_up.weight": "lora_B.weight"},
    "saved whole": {"lora_down.weight": "lora_A.default.weight", "lora_up.weight": "lora_B.default.weight"},
    "old": {"lora_down.weight": "down.weight", "lora_up.weight": "up.weight"},
}
"""Ends of keys by the tool that writes them: what stands for sd-scripts' own."""


def spelled(stems, weights, kind="LoRA", ends="kohya", alpha=True, seed=0):
    """A file's tensors, and the changes of the weights.

    Args:
        stems: Start of keys by layer.
        weights: Weights by layer.
        kind: What each update is.
        ends: How the ends of keys are written.
        alpha: Whether the file says alpha; without, it is the rank, and the changes are meant so.
        seed: Of the numbers.
    """
    g = torch.Generator().manual_seed(seed)
    file, changes = {}, {}
    for layer, stem in stems.items():
        found, change = KINDS[kind](weights[layer].float(), g)
        if not alpha:
            found.pop("alpha", None)
            change = change / SCALE
        table = ENDS[ends]
        file |= {f"{stem}.{table.get(end, end)}": value.contiguous() for end, value in found.items()}
        changes[layer] = change
    return file, changes


def layers(state, dims=(2, 4)):
    """Weights of linear layers and convolutions, by layer; embeddings and tables are not among them."""
    return {
        key.removesuffix(".weight"): value
        for key, value in state.items()
        if key.endswith(".weight") and value.ndim in dims and "embedding" not in key
    }
