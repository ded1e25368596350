"""What training of published models holds on a GPU: `python -m tests.planned [NAME[:WAY] ...]` writes `docs/memory.md`.

Each model's DreamBooth with the preset that it gets, one picture at its size, counted on the simulated device (`studio plan`),
as it is and with each further change that saves memory. Names limit what is counted anew; the rest is kept in `planned.json`.
"""

import json
import sys
import tempfile
from pathlib import Path

from studio.backend.quiet import quiet
from studio.catalog import families
from studio.catalog.checks import check
from studio.commands.planning import assumed_data
from studio.flags import flags
from studio.settings.memory import CARDS, said
from studio.training.plan import KEPT_GIB
from studio.training.savers import changes
from studio.training.simulate import simulate
from tests import tree

FILE = Path(__file__).with_name("planned.json")
PAGE = tree.ROOT / "docs" / "memory.md"
METHOD = "dreambooth"
Counted = list[dict[str, object]]
"""Of one model: flags that are added, peak in GiB, GiB of models in RAM."""
WAYS = {"LoRA": [], "whole": ["--adapter", "full"]}
SHORT = {
    "--loop.accumulate": "A",
    "--hardware.gradient-checkpointing": "C",
    "--hardware.offload": "O",
    "--hardware.quantize int8": "8",
    "--hardware.quantize fp8": "E",
    "--hardware.quantize nf4": "4",
    "--optim.name adamw8bit": "M",
    "--optim.full-bf16": "B",
    "--optim.fused-backward": "F",
}
"""Letters of flags; one without is told by its neighbor."""


def count(model: str, way: str) -> Counted:
    """Peaks of a model's training, as its preset has it and with each further change."""
    with tempfile.TemporaryDirectory() as folder:
        given = ["--model", model, "--prior", "no-prior", *WAYS[way]]
        run, _ = flags.started(METHOD, [*given, *assumed_data(METHOD, given, Path(folder))])
        check(run)
        found: Counted = []
        for added, tried in [([], run), *((each.flags, each.run) for each in changes(run))]:
            peak = simulate(tried, exports=False)
            found.append({"flags": added, "gib": round(peak.peak_gib, 1), "ram": round(peak.host_gib, 1)})
            print(model, way, found[-1], flush=True)
    return found


def render(known: dict[str, Counted]) -> str:
    """The page."""
    head = ["model", "trains", "as it is", *(f"{card} GiB" for card in CARDS)]
    rows = [_row(*key.split(), counted) for key, counted in known.items()]
    lines = [f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows]]
    return "\n".join([*TEXT, *lines, "", *_meaning(known)]) + "\n"


TEXT = f"""# Memory of published models

What training holds at its highest moment on a GPU: `studio train {METHOD} --model NAME` (whole: `--adapter full`), the preset
that the model gets, one picture at its size, without class pictures. Counted on the simulated device (`studio plan {METHOD} --model NAME
--gpu SIZE` does the same for any run): every tensor of the method's own step on the model's full shapes, in CUDA's blocks
of 512 bytes; {KEPT_GIB} GiB of each card are left to its driver. Within 5 % of what the same steps hold on a CPU in fp32
(`tests/test_simulate.py`); not yet compared with a GPU. This page is written by `python -m tests.planned`.

`yes` is the preset as it is; letters are changes to add, from the cheapest on; `-` does not fit.

""".splitlines()


def _row(model: str, way: str, counted: Counted) -> list[str]:
    cells = [_cell(counted, card - KEPT_GIB) for card in CARDS]
    return [f"`{model}`", way, said(float(str(counted[0]["gib"]))), *cells]


def _cell(counted: Counted, limit: float) -> str:
    fitting = next((each for each in counted if float(str(each["gib"])) <= limit), None)
    if fitting is None:
        return "-"
    return "".join(_letter(flag) for flag in _flags(fitting)) or "yes"


def _flags(one: dict[str, object]) -> list[str]:
    found = one["flags"]
    return [str(flag) for flag in found] if isinstance(found, list) else []


def _letter(flag: str) -> str:
    return SHORT.get(flag, SHORT.get(flag.split(maxsplit=1)[0], ""))


def _meaning(known: dict[str, Counted]) -> list[str]:
    used = {_letter(flag) for counted in known.values() for each in counted for flag in _flags(each)}
    return [f"- {letter}: `{flag}`" for flag, letter in SHORT.items() if letter in used]


def main(names: list[str]) -> None:
    """Count what is wanted, and write file and page."""
    known: dict[str, Counted] = json.loads(FILE.read_text(encoding="utf-8")) if FILE.is_file() else {}
    keys = [(card.name, variant.name, way) for card, variant in families.variants() for way in WAYS]
    for family, model, way in keys:
        if not names or {family, model, f"{model}:{way}"} & set(names):
            known[f"{model} {way}"] = count(model, way)
            order = {key: known[key] for _, *parts in keys if (key := " ".join(parts)) in known}
            FILE.write_text(json.dumps(order, indent=1) + "\n", encoding="utf-8")
            PAGE.write_text(render(order), encoding="utf-8")


if __name__ == "__main__":
    quiet()
    main(sys.argv[1:])
