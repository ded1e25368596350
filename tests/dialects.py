"""Every dialect on every family: `python -m tests.dialects [NAME ...]` writes `docs/dialects.md` and its cells, `dialects.json`.

A cell of reading: a file as the tool writes it, for a model with the published blocks (`tests/narrow.py`), is put on the model,
and the changes of its weights are compared with the tool's own formula. Where the tool's layers are those of the original
checkpoint, what they change there is brought to diffusers' names by the converters of whole checkpoints, not by our tables.
A cell of writing is the same way back. Names limit what is measured anew.
"""

import copy
import functools
import inspect
import json
from pathlib import Path

import torch
from diffusers.loaders import single_file_utils
from diffusers.loaders.single_file_model import SINGLE_FILE_LOADABLE_CLASSES

from studio.adapters.build import NAME, attach
from studio.adapters.config import Loha, Lokr, Lora
from studio.adapters.dialects.reading import read_updates
from studio.adapters.formats import to_comfy, to_diffusers, to_kohya, updates
from studio.adapters.merge import merged_copy
from studio.catalog import families
from studio.errors import StudioError
from studio.models.checkpoints.convert import of_diffusers
from tests import narrow, original_names, tree
from tests.on_families import command
from tests.spelled import layers, spelled

FILE = Path(__file__).with_name("dialects.json")
PAGE = tree.ROOT / "docs" / "dialects.md"
UNETS = ("sd1", "sd2", "sdxl")


def flat(name):
    return name.replace(".", "_")


def by_blocks(name):
    return "blocks." in name or "layers." in name or "block." in name


def ours(start, change=lambda name: name, ends="peft", *, only=None, alpha=False):
    """A dialect of diffusers' layers."""

    def write(family, kind):
        weights = layers(denoiser(family).state_dict())
        stems = {
            layer: start + change(layer)
            for layer in weights
            if by_blocks(layer) and (only is None or only(layer))
        }
        file, changes = spelled(stems, weights, kind, ends, alpha)
        return file, {f"{layer}.weight": change for layer, change in changes.items()}

    return write


def theirs(start, change=lambda name: name, ends="kohya", *, alpha=True):
    """A dialect of the original checkpoint's layers."""

    def write(family, kind):
        original = original_names.of(family, denoiser(family))
        weights = layers(original)
        stems = {layer: start + change(layer) for layer in weights if by_blocks(layer)}
        file, changes = spelled(stems, weights, kind, ends, alpha)
        return file, in_ours(family, original, changes)

    return write


def in_ours(family, original, changes):
    """Changes of the original weights, as changes of ours: both are converted, and taken from one another."""
    module = denoiser(family)
    moved = {key: value + changes.get(key.removesuffix(".weight"), 0) if key.endswith(".weight") else value
             for key, value in original.items()}  # fmt: skip
    before, after = (
        converted(module, {key: value.clone() for key, value in state.items()}) for state in (original, moved)
    )
    return {key: after[key] - before[key] for key in after if not torch.equal(after[key], before[key])}


def converted(module, state):
    """The weights in diffusers' names by diffusers' converter, which has FLUX.1's width written in: then with the model's."""
    kind = SINGLE_FILE_LOADABLE_CLASSES.get(type(module).__name__, {})
    source = inspect.getsource(kind["checkpoint_mapping_fn"]) if kind else ""
    if "inner_dim = 3072" not in source:
        return of_diffusers(module, state)
    wide = source.replace("inner_dim = 3072", f"inner_dim = {module.inner_dim}")
    names = dict(vars(single_file_utils))
    exec(wide, names)  # diffusers' own text with one number changed
    return names[kind["checkpoint_mapping_fn"].__name__](checkpoint=state, config=module.config)


def processor(layer):
    for end in (".to_q", ".to_k", ".to_v", ".to_out.0"):
        layer = (
            layer.replace(end, f".processor{end.removesuffix('.0')}_lora") if layer.endswith(end) else layer
        )
    return layer


XLABS = {
    "img_attn.qkv": "qkv_lora1",
    "txt_attn.qkv": "qkv_lora2",
    "img_attn.proj": "proj_lora1",
    "txt_attn.proj": "proj_lora2",
}


def xlabs(family, kind):
    original = original_names.of(family, denoiser(family))
    weights = layers(original)
    stems = {}
    for layer in weights:
        for end, name in XLABS.items():
            if layer.endswith(f".{end}"):
                stems[layer] = layer.removesuffix(end) + f"processor.{name}"
    file, changes = spelled(stems, weights, kind, "old", False)
    return file, in_ours(family, original, changes)


def kohya(family, kind):
    if family in ("sd1", "sd2", "qwen-image", "qwen-image-edit", "z-image"):
        return ours("lora_unet_", flat, "kohya", alpha=True)(family, kind)
    return theirs("lora_unet_", flat)(family, kind)


ATTENTION = (".to_q", ".to_k", ".to_v", ".to_out.0")
DIALECTS = {
    "sd-scripts, musubi-tuner (kohya)": (kohya, ("LoRA",)),
    "LyCORIS in kohya keys": (kohya, ("DoRA", "LoHa", "LoKr", "diff")),
    "ComfyUI, diffusion-pipe": (lambda f, k: (ours("diffusion_model.") if f in UNETS or original_names.same(f)
                                else theirs("diffusion_model.", ends="peft", alpha=False))(f, k), ("LoRA",)),
    "original names alone": (theirs("", ends="peft", alpha=False), ("LoRA",)),
    "diffusers, SimpleTuner, ai-toolkit": (lambda f, k: ours(f"{families.cards()[f].denoiser}.")(f, k), ("LoRA",)),
    "diffusers with lora_down": (lambda f, k: ours(f"{families.cards()[f].denoiser}.", ends="kohya", alpha=True)(f, k), ("LoRA",)),
    "PEFT (adapter_model.safetensors)": (ours("base_model.model."), ("LoRA",)),
    "PEFT, keys alone, saved whole": (ours("", ends="saved whole"), ("LoRA",)),
    "OneTrainer": (lambda f, k: ours("lora_unet_" if f in UNETS else "lora_transformer_", flat, "kohya", alpha=True)(f, k),
                   ("LoRA", "DoRA", "LoHa")),
    "LyCORIS around diffusers (SimpleTuner)": (ours("lycoris_", flat, "kohya", alpha=True), ("LoRA", "LoHa", "LoKr", "diff")),
    "attention processors (diffusers before 0.22)": (ours("", processor, "old", only=lambda n: n.endswith(ATTENTION)), ("LoRA",)),
    "XLabs": (xlabs, ("LoRA",)),
}  # fmt: skip
"""How each tool writes, and what."""


KIN = {"flux": ("flux-kontext", "flux-fill"), "flux2-klein": ("flux2",), "qwen-image": ("qwen-image-edit",)}
"""Families whose layers have the names of another, which stands for them."""
FAMILIES = tuple(name for name in families.cards() if not any(name in kin for kin in KIN.values()))


def fits(dialect, family):
    """Whether the tool knows the family under names of its own."""
    if dialect.startswith("attention"):
        return family in UNETS
    if "kohya" in dialect:
        return families.cards()[family].names.kohya
    if dialect == "XLabs":
        return family == "flux"
    if dialect.startswith("original"):
        return family not in UNETS and not original_names.same(family)
    return True


def denoiser(family):
    return narrow.components(family)[families.cards()[family].denoiser]


def reading(dialect, family, kind):
    """How many layers were matched and how far the changes of the weights are from the tool's own."""
    file, wanted = DIALECTS[dialect][0](family, kind)
    card = families.cards()[family]
    found = read_updates(file, {}, card, narrow.components(family))
    state = denoiser(family).state_dict()
    updates = found.updates[card.denoiser]
    changes = {f"{layer}.weight": one.change(state[f"{layer}.weight"]) for layer, one in updates.items()}
    return found.layers, _difference({key: change for key, change in changes.items() if change.any()}, wanted)


WRITERS = {
    "kohya": to_kohya,
    "comfy": to_comfy,
    "diffusers": lambda parts, card, modules: to_diffusers(parts),
}
ADAPTERS = {"LoRA": Lora(rank=4, alpha=3, layers="blocks"), "DoRA": Lora(rank=4, dora=True, layers="blocks"),
            "LoHa": Loha(rank=2, layers="blocks"), "LoKr": Lokr(rank=2, layers="blocks")}  # fmt: skip


@functools.cache
def trained(family, kind):
    """A denoiser with an adapter that moved, and the changes of the weights when it is merged."""
    module = copy.deepcopy(denoiser(family))
    shake(module, ADAPTERS[kind])
    after, before = merged_copy(module).state_dict(), denoiser(family).state_dict()
    return module, {
        key: after[key] - before[key] for key in before if not torch.equal(after[key], before[key])
    }


def writing(chosen, family, kind):
    """The same of a file of ours, whose keys are applied to the weights that they name there."""
    card = families.cards()[family]
    module, wanted = trained(family, kind)
    modules = {card.denoiser: module}
    file = WRITERS[chosen](updates(modules, NAME), card, modules)
    number, changes = original_names.applied(file, family, denoiser(family), by_base=chosen == "comfy")
    original = changes.pop("original", None)
    ours_ = {f"{key}.weight": value for key, value in changes.items()}
    return number, _difference(ours_ if original is None else in_ours(family, original, changes), wanted)


@torch.no_grad()
def shake(module, adapter):
    generator = torch.Generator().manual_seed(1)
    for names in attach(adapter, {"denoiser": module}).values():
        parameters = dict(module.named_parameters())
        for name in sorted(names):
            parameters[name] += 0.1 * torch.randn(parameters[name].shape, generator=generator)


def _difference(found, wanted):
    assert wanted
    if found.keys() != wanted.keys():
        raise AssertionError(f"{sorted(found.keys() ^ wanted.keys())[:3]} are in one of the two")
    return max(float((found[key] - wanted[key]).abs().max()) for key in wanted)


def cell(way, name, family, kind):
    """What the page says of one."""
    try:
        number, difference = (reading if way == "read" else writing)(name, family, kind)
    except StudioError as error:
        return f"refused: {error}"
    return f"{number}, {difference:.0e}"


def all_cells():
    for family in FAMILIES:
        for dialect, (_, kinds) in DIALECTS.items():
            for kind in kinds:
                yield "read", dialect, family, kind
        for chosen in WRITERS:
            for kind in ADAPTERS:
                yield "write", chosen, family, kind


def wanted(names):
    for way, name, family, kind in all_cells():
        card = families.cards()[family]
        there = (
            fits(name, family)
            if way == "read"
            else {"kohya": card.names.kohya, "comfy": card.names.comfy}.get(name, True)
        )
        if there and set(names) <= {way, name, family, kind}:
            yield way, name, family, kind


HEAD = """# Dialects of adapters

Made by `python -m tests.dialects`: each tool's file for a model with the published blocks at small width, read and put on the model;
and each of our formats, its keys applied to the weights that they name in the tool's own model. A cell says how many layers were
matched, and the largest difference of a weight from what the tool's own formula makes it (the changes are of the order of 1).
FLUX.1 stands for Kontext and Fill, FLUX.2 klein for dev,
Qwen-Image for its Edit: their layers have the same names. An empty cell: there is no such file. A number in brackets is a refusal.

A file is told when it is loaded: `kohya LoRA for FLUX.1, 190 layers, rank 32, alpha 16`. Alpha is the file's own: a tensor, or
diffusers' entry in the metadata, or the rank. The magnitudes of a DoRA are those of LyCORIS and PEFT, which divide by the lengths of
the changed rows; ComfyUI and Forge divide by those of the base weights, so a file in `comfy` keys has magnitudes for that (and says
`studio.dora_norm` in its metadata), and is equal there; a DoRA that LyCORIS wrote is another one in ComfyUI than in its trainer.
Not read, and refused by name: OFT and BOFT of LyCORIS, GLoRA, IA3, FLUX control LoRAs.
"""


def render(cells):
    parts = [HEAD]
    reasons = []
    for way, title in (("read", "Reading"), ("write", "Writing (`--export.formats`)")):
        names = list(FAMILIES)
        lines = [
            f"\n## {title}\n",
            _row("file" if way == "read" else "format", "adapter", *names),
            _row(*["---"] * (len(names) + 2)),
        ]
        keys = dict.fromkeys(
            (name, kind) for key in cells for w, name, _, kind in [key.split(" | ")] if w == way
        )
        for name, kind in sorted(keys):
            lines.append(
                _row(
                    name, kind, *(_short(cells.get(" | ".join((way, name, f, kind))), reasons) for f in names)
                )
            )
        parts.append("\n".join(lines) + "\n")
    return (
        "\n".join(parts)
        + "".join(f"\n{n}. {reason}" for n, reason in enumerate(reasons, 1))
        + "\n" * bool(reasons)
    )


def _short(said, reasons):
    if not said or not said.startswith("refused: "):
        return said or ""
    reason = said.removeprefix("refused: ").split(";")[0]
    reason = "the layers of a fused one have no LoKr together" if "are the one layer" in reason else reason
    reason = "diffusers' files hold LoRA and DoRA" if "hold LoRA and DoRA" in reason else reason
    if reason not in reasons:
        reasons.append(reason)
    return f"({reasons.index(reason) + 1})"


def _row(*cells):
    return f"| {' | '.join(cells)} |"


def read():
    return json.loads(FILE.read_text(encoding="utf-8")) if FILE.is_file() else {}


def main(names):
    for way, name, family, kind in wanted(names):
        said = cell(way, name, family, kind)
        cells = read()  # anew: several of this command may run
        cells[" | ".join((way, name, family, kind))] = said
        print(way, name, family, kind, said, flush=True)
        FILE.write_text(json.dumps(cells, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    PAGE.write_text(render(read()), encoding="utf-8")
    return 0


if __name__ == "__main__":
    command(main)
