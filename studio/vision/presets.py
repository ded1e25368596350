"""What finetuning under attack takes by default. No torch."""

from studio.catalog.cards import Preset
from studio.catalog.suits import Suits

ATTACKED = {
    "tiny": Preset(
        {"optim.lr": 3e-4, "optim.weight_decay": 0.05, "loop.batch_size": 64, "loop.steps": 500},
        suits=Suits(small=True),
        note="ours, for the embedded model",
    ),
    "vit": Preset(
        {"optim.lr": 3e-5, "optim.weight_decay": 0.05, "optim.schedule": "cosine", "loop.batch_size": 64},
        suits=Suits(networks=("vit",), small=False),
        note="ours: AdamW with a small rate, clip norm 1",
    ),
    "convnet": Preset(
        {
            "optim.name": "sgd",
            "optim.lr": 1e-2,
            "optim.weight_decay": 2e-4,
            "optim.schedule": "cosine",
            "loop.batch_size": 128,
        },
        suits=Suits(networks=("convnet",), small=False),
        note="TRADES' official train_trades_cifar10.py (SGD, weight decay 2e-4, batch 128), at a tenth of its rate of "
        "0.1, which is for random weights",
    ),
}
"""Of adversarial training and ARREST, by the network."""
