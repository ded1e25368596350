"""Time of a layer's forward and backward pass under LoRA, OFT and BOFT, ours and PEFT's, side by side.

Layers are the attention projections of SD 1.5. Every round runs all contenders once, in another order each time, and
a number is the median over the rounds: what else the machine does hits all of them alike. `--clock cpu` counts the
process's own seconds on all its threads instead of the wall's, for a machine that is busy with other things.

    python -m studio.bench.orthogonal --threads 1 2 --rounds 15
"""

import argparse
import logging
import random
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from peft import BOFTConfig, LoraConfig, OFTConfig, inject_adapter_in_model
from torch import nn

from studio.adapters.build import attach
from studio.adapters.config import Boft, Lora, Oft

log = logging.getLogger(__name__)
SHAPES = ((4096, 320), (1024, 640), (256, 1280), (1024, 320), (256, 640))
"""Tokens and width: SD 1.5 attention at 512 px (4096, 1024, 256 tokens), and at half the side."""
BASELINE = "PEFT LoRA r16"
Layer = Callable[[], nn.Module]


@dataclass(frozen=True)
class Row:
    """Median seconds of one contender on one shape."""

    tokens: int
    width: int
    threads: int
    seconds: dict[str, float]

    def ratios(self, to: str = BASELINE) -> dict[str, float]:
        """Times relative to one contender's."""
        return {name: seconds / self.seconds[to] for name, seconds in self.seconds.items()}

    def added(self, name: str) -> float:
        """Seconds on top of the frozen layer."""
        return self.seconds[name] - self.seconds["frozen"]


def contenders(width: int) -> dict[str, Layer]:
    """Every kind of layer, as a model with one linear layer `to_q`."""

    def plain() -> nn.Module:
        return nn.ModuleDict({"to_q": nn.Linear(width, width).requires_grad_(False)})

    def ours(adapter: Oft | Boft | Lora) -> Layer:
        def build() -> nn.Module:
            module = plain()
            attach(adapter, {"model": module})
            return module["to_q"]  # pyright: ignore[reportIndexIssue]  # a ModuleDict

        return build

    def theirs(config: LoraConfig | OFTConfig | BOFTConfig) -> Layer:
        def build() -> nn.Module:
            module = plain()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # PEFT says that it forces m = 1
                inject_adapter_in_model(config, module)
            return module["to_q"]  # pyright: ignore[reportIndexIssue]  # a ModuleDict

        return build

    where, only = ["to_q"], ("to_q",)
    return {
        "frozen": lambda: plain()["to_q"],  # pyright: ignore[reportIndexIssue]  # a ModuleDict
        BASELINE: theirs(LoraConfig(r=16, target_modules=where)),
        "PEFT OFT b32 exact": theirs(
            OFTConfig(r=0, oft_block_size=32, use_cayley_neumann=False, target_modules=where)
        ),
        "PEFT OFT b32 K5": theirs(OFTConfig(r=0, oft_block_size=32, target_modules=where)),
        "PEFT BOFT b8 m1": theirs(BOFTConfig(boft_block_size=8, target_modules=where)),
        "our OFT b32": ours(Oft(only=only)),
        "our OFT b32 K5": ours(Oft(only=only, cayley="neumann")),
        "our BOFT b8 m1": ours(Boft(only=only, factors=1)),
        "our BOFT b8 m2": ours(Boft(only=only, factors=2)),
        "our BOFT b8 m4": ours(Boft(only=only, factors=4)),
    }


CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def measure(tokens: int, width: int, threads: int, *, rounds: int, clock: str = "wall") -> Row:
    """Time all contenders on one shape."""
    torch.set_num_threads(threads)
    now = CLOCKS[clock]
    x = torch.randn(1, tokens, width, generator=torch.Generator().manual_seed(0))
    steps = {name: _step(build().train(), x) for name, build in contenders(width).items()}
    times: dict[str, list[float]] = {name: [] for name in steps}
    order = list(steps)
    for name in order:
        steps[name]()
    for number in range(rounds):
        random.Random(number).shuffle(order)
        for name in order:
            start = now()
            steps[name]()
            times[name].append(now() - start)
    return Row(tokens, width, threads, {name: statistics.median(values) for name, values in times.items()})


def table(rows: Sequence[Row]) -> str:
    """Times in milliseconds, ratios to PEFT's LoRA, and what the adapter adds to the frozen layer, as Markdown."""
    names = list(rows[0].seconds)
    lines = ["| layer | " + " | ".join(f"{r.tokens}x{r.width}, {r.threads}T" for r in rows) + " |"]
    lines.append("|---" * (len(rows) + 1) + "|")
    for name in names:
        cells = [
            f"{row.seconds[name] * 1e3:.1f} ms ({row.ratios()[name]:.2f}, +{row.added(name) * 1e3:.1f})"
            for row in rows
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _step(layer: nn.Module, x: torch.Tensor) -> Callable[[], None]:
    """One forward and backward pass; the input needs a gradient, as it does inside a network."""
    inside = x.clone().requires_grad_()
    for parameter in layer.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.01, generator=torch.Generator(parameter.device).manual_seed(1))

    above = torch.randn(x.shape, generator=torch.Generator().manual_seed(2)).to(x.device)

    def run() -> None:
        inside.grad = None
        layer.zero_grad(set_to_none=True)
        layer(inside).backward(above)

    return run


def main() -> None:
    """Measure all shapes and print the table."""
    parser = argparse.ArgumentParser(description="Time OFT and BOFT against LoRA, ours and PEFT's.")
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall")
    chosen = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    rows = [
        measure(tokens, width, threads, rounds=chosen.rounds, clock=chosen.clock)
        for threads in chosen.threads
        for tokens, width in SHAPES
    ]
    log.info("%s", table(rows))


if __name__ == "__main__":
    main()
