"""DreamBooth's presets for published models, each with the script that it is from. The first that suits is taken. No torch."""

from studio.catalog.cards import Preset
from studio.catalog.suits import Suits

_ONE_BY_ONE = {"loop.batch_size": 4, "loop.accumulate": 4}
"""diffusers' commands: one picture at a time, gradients of four."""
_LORA = _ONE_BY_ONE | {"loop.steps": 500, "optim.lr": 1e-4}
_LARGE = _LORA | {"method.prior": {"kind": "no-prior"}, "hardware.gradient_checkpointing": True}
"""The scripts for transformers keep no class."""
_FULL = _LARGE | {"method.adapter": {"kind": "full"}, "loop.batch_size": 1, "loop.accumulate": 1}
_FLUX = ("flux", "flux-kontext", "flux-fill")
_QWEN = ("qwen-image", "qwen-image-edit", "qwen-image-2.1")

LARGE = {
    "sdxl-lora": Preset(
        _LORA,
        suits=Suits(families=("sdxl",), small=False, chosen=("adapter",)),
        note="diffusers' examples/dreambooth/README_sdxl.md: 1e-4, 500 steps, 1024 px",
    ),
    "unet-lora": Preset(
        {"loop.batch_size": 1, "loop.steps": 500, "optim.lr": 1e-4},
        suits=Suits(process="discrete", small=False, chosen=("adapter",)),
        note="diffusers' examples/dreambooth/README.md, LoRA: 1e-4, batch 1, 500 steps",
    ),
    "sd3-lora": Preset(
        _LARGE | {"optim.lr": 4e-4},
        suits=Suits(families=("sd3",), small=False, chosen=("adapter",)),
        note="diffusers' examples/dreambooth/README_sd3.md, LoRA: 4e-4, 500 steps, logit-normal times",
    ),
    "flux-lora": Preset(
        _LARGE,
        suits=Suits(families=_FLUX, small=False, chosen=("adapter",)),
        note="sd-scripts' docs/flux_train_network.md (AdamW, 1e-4, rank 16); batch and steps of diffusers' "
        "examples/dreambooth/README_flux.md, whose Kontext command has the same rate",
    ),
    "qwen-lora": Preset(
        _LARGE | {"optim.lr": 2e-4},
        suits=Suits(families=_QWEN, small=False, chosen=("adapter",)),
        note="diffusers' examples/dreambooth/README_qwen.md: 2e-4, 500 steps; musubi-tuner's docs/qwen_image.md takes 5e-5 for "
        "longer runs",
    ),
    "krea-lora": Preset(
        _LARGE
        | {
            "method.adapter": {"kind": "lora", "rank": 32},
            "loop.batch_size": 1,
            "loop.accumulate": 1,
            "loop.steps": 1000,
            "optim.lr": 3e-4,
        },
        suits=Suits(families=("krea2",), small=False, chosen=("lora",)),
        note="diffusers' examples/dreambooth/README_krea2.md: rank 32, 3e-4, batch 1, 1,000 steps",
    ),
    "flow-lora": Preset(
        _LARGE,
        suits=Suits(process="flow", small=False, chosen=("adapter",)),
        note="diffusers' examples/dreambooth/README_flux2.md and README_z_image.md: 1e-4, 500 steps; ai-toolkit's examples have "
        "the same rate and rank 16",
    ),
    "sdxl-full": Preset(
        _FULL | {"method.prior": {"kind": "generated-prior"}, "loop.steps": 800, "optim.lr": 1e-6},
        suits=Suits(families=("sdxl",), small=False, chosen=("whole",)),
        note="diffusers' examples/text_to_image/README_sdxl.md: 1e-6; steps of DreamBooth's README.md",
    ),
    "full": Preset(
        {"method.adapter": {"kind": "full"}, "optim.lr": 5e-6, "loop.steps": 800, "loop.batch_size": 1},
        suits=Suits(process="discrete", small=False, chosen=("whole",)),
        note="diffusers' examples/dreambooth/README.md with prior preservation: 5e-6, batch 1, 800 steps",
    ),
    "sd3-full": Preset(
        _FULL | {"optim.lr": 4e-6},
        suits=Suits(families=("sd3",), small=False, chosen=("whole",)),
        note="sd-scripts' docs/fine_tune.md for SD3: 4e-6; steps as for LoRA",
    ),
    "flux-full": Preset(
        _FULL | {"optim.lr": 1e-5},
        suits=Suits(families=_FLUX, small=False, chosen=("whole",)),
        note="sd-scripts' docs/fine_tune.md for FLUX.1: 1e-5; steps as for LoRA",
    ),
    "flow-full": Preset(
        _FULL
        | {
            "optim.name": "adafactor",
            "optim.lr": 1e-6,
            "optim.schedule": "constant_with_warmup",
            "optim.warmup": 10,
            "loop.clip_norm": 0.0,
        },
        suits=Suits(process="flow", small=False, chosen=("whole",)),
        note="musubi-tuner's docs/zimage.md and docs/qwen_image.md, finetuning: Adafactor, 1e-6, 10 steps of warm-up, no clipping; "
        "steps as for LoRA",
    ),
}
"""LoRA and all weights, by family where sources differ, else by how the model was trained to draw."""
