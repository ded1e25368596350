"""The adapter shelf as a table: size, cost, exactness and readers, each measured here and now.

    studio adapters > docs/adapters-table.md

Layers: the four attention projections of SD 1.5 at width 320, 1024 tokens, one thread. A step is forward and backward;
its cost is the median over interleaved rounds, relative to LoRA of rank 16. Seconds are the process's own.
"""

import copy
import random
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float
from peft import LoraConfig, PeftModel
from torch import Tensor, nn
from typing_extensions import override

from studio.adapters import config as c
from studio.adapters.build import NAME, attach, names
from studio.adapters.files import write_peft
from studio.adapters.merge import bare, merged_copy
from studio.settings.custom import Custom

BASELINE = "lora"
WIDTH, TOKENS = 320, 1024


class Projections(nn.Module):
    """A norm and the four projections of an attention layer, without the attention."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.to_q, self.to_k, self.to_v = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(3))
        self.to_out = nn.Linear(WIDTH, WIDTH)

    @override
    def forward(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        x = self.norm(x)
        return x + self.to_out(self.to_q(x) * self.to_k(x).sigmoid() + self.to_v(x))


@dataclass
class Line:
    """What was measured of one adapter."""

    parameters: int
    start: float
    merged: float
    readers: str
    cost: float = 0.0


def shelf() -> dict[str, c.Adapter]:
    """Every member of the union with its defaults, and the variants people choose among."""
    plain: dict[str, c.Adapter] = {
        kind.__name__.lower(): kind() for kind in c.Adapter.__args__ if kind is not Custom
    }
    variants: dict[str, c.Adapter] = {
        "lora, dora": c.Lora(dora=True),
        "lora, rslora": c.Lora(rslora=True),
        "oft, coft radius 0.5": c.Oft(radius=0.5),
        "oft, neumann": c.Oft(cayley="neumann"),
        "oft, shared": c.Oft(share=True),
        "oft, lengths": c.Oft(lengths="learned"),
        "oft, 4 blocks": c.Oft(block_size=0, blocks=4),
        "boft, 1 factor": c.Boft(factors=1),
        "boft, 4 factors": c.Boft(factors=4),
    }
    found = dict(sorted({**plain, **variants}.items()))
    return {
        key: replace(one, layers="linear") if isinstance(one, c.Placed) else one for key, one in found.items()
    }


def measure(rounds: int) -> dict[str, Line]:
    """All lines of the table."""
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, TOKENS, WIDTH, generator=generator)
    base = Projections().requires_grad_(False)
    lines: dict[str, Line] = {}
    steps: dict[str, Callable[[], None]] = {}
    for key, adapter in shelf().items():
        model = copy.deepcopy(base)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # notes of PEFT on beta features
            trains = attach(adapter, {"model": model})["model"]
            lines[key] = _line(model, base, trains, x)
        steps[key] = _step(model, x)
    for key, cost in _costs(steps, rounds).items():
        lines[key].cost = cost
    return lines


def table(lines: dict[str, Line]) -> str:
    """Markdown."""
    head = ["adapter", "parameters", "step (LoRA = 1)", "off the base at start", "merged off by", "read by"]
    rows = [" | ".join(head), " | ".join(["---"] * len(head))]
    for key, line in lines.items():
        cells = [
            key,
            f"{line.parameters:,}",
            f"{line.cost:.2f}",
            _small(line.start),
            _small(line.merged),
            line.readers,
        ]
        rows.append(" | ".join(cells))
    return "\n".join(f"| {row} |" for row in rows)


@torch.no_grad()
def _line(model: nn.Module, base: nn.Module, trains: frozenset[str], x: Tensor) -> Line:
    wanted = base(x)
    start = _off(model(x), wanted)
    parameters = dict(model.named_parameters())
    generator = torch.Generator().manual_seed(1)
    for name in sorted(trains):
        parameters[name].add_(0.02 * torch.randn(parameters[name].shape, generator=generator))
    count = sum(parameters[name].numel() for name in trains)
    adapted = bool(names(model))
    merged = _off(merged_copy(model)(x), model(x)) if adapted else 0.0
    return Line(count, start, merged, _readers(model, x) if adapted else "all (merged)")


def _readers(model: nn.Module, x: Tensor) -> str:
    """Who gives the same output from the file: PEFT is asked, LoRA files are what diffusers and the UIs take."""
    config = model.peft_config[NAME]  # pyright: ignore[reportIndexIssue, reportArgumentType]  # PEFT puts it there
    with tempfile.TemporaryDirectory() as root:
        write_peft(Path(root) / "peft", model, NAME, "")
        try:
            theirs = PeftModel.from_pretrained(copy.deepcopy(bare(model)), f"{root}/peft")
        except KeyError:  # a folder of our own, which PEFT is to refuse
            return "studio, all (merged)"
        same = _off(theirs(x), model(x)) < 1e-4
    lora = isinstance(config, LoraConfig)
    files = (
        ["diffusers", *([] if config.use_dora else ["kohya"])] if lora else []
    )  # kohya's have no magnitudes
    return ", ".join(["studio", *(["peft"] if same else []), *files, "all (merged)"])


def _costs(steps: dict[str, Callable[[], None]], rounds: int) -> dict[str, float]:
    times: dict[str, list[float]] = {key: [] for key in steps}
    order = list(steps)
    for number in range(rounds + 1):
        random.Random(number).shuffle(order)
        for key in order:
            start = time.process_time()
            steps[key]()
            times[key].append(time.process_time() - start)
    medians = {key: statistics.median(values[1:]) for key, values in times.items()}
    return {key: value / medians[BASELINE] for key, value in medians.items()}


def _step(model: nn.Module, x: Tensor) -> Callable[[], None]:
    inside = x.clone().requires_grad_()

    def run() -> None:
        model.zero_grad(set_to_none=True)
        model(inside).square().mean().backward()

    return run


def _off(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).abs().max() / wanted.abs().max())


def _small(value: float) -> str:
    return f"{value:.0e}" if value else "0"
