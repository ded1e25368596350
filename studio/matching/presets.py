"""What finetuning a CLIP takes by default, by what moves. No torch."""

from studio.catalog.cards import Preset
from studio.catalog.suits import Suits

MAPLE = Preset(
    {
        "optim.name": "sgd",
        "optim.lr": 3.5e-3,
        "optim.schedule": "cosine",
        "optim.weight_decay": 5e-4,
        "loop.batch_size": 4,
    },
    suits=Suits(small=False, chosen=("maple",)),
    note="MaPLe's config vit_b16_c2_ep5_batch4_2ctx: SGD, lr 0.0035, cosine, batch 4",
)

PROMPTSRC = Preset(
    {
        "optim.name": "sgd",
        "optim.lr": 2.5e-3,
        "optim.schedule": "cosine",
        "optim.weight_decay": 5e-4,
        "loop.batch_size": 4,
    },
    suits=Suits(small=False, chosen=("promptsrc",)),
    note="PromptSRC's config vit_b16_c2_ep20_batch4_4+4ctx: SGD, lr 0.0025, cosine, batch 4",
)

ADAPTER = Preset(
    {
        "optim.lr": 2e-4,
        "optim.schedule": "cosine",
        "loop.batch_size": 32,
        "loop.steps": 8000,
    },
    suits=Suits(small=False, chosen=("adapter",)),
    note="CLIP-LoRA's official run_utils.py: AdamW, lr 2e-4, batch 32, 500 steps a shot",
)
