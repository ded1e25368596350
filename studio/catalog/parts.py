"""How a batch is shared by processes and cut into parts: what nobody gave follows what was given. No torch."""

import dataclasses
from collections.abc import Set
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from studio.catalog.run import Run

BATCH, PARTS, PROCESSES = "loop.batch_size", "loop.accumulate", "hardware.num_processes"


def follow(run: "Run", given: Set[str]) -> "Run":
    """The run with as many parts as cut its batch evenly, or, where these are given, with a batch that they cut.

    Args:
        run: Any run.
        given: Dotted names of the settings that a person gave; where they do not go together, the run stays as it is.
    """
    batch, parts, processes = run.loop.batch_size, run.loop.accumulate, run.hardware.num_processes
    if batch % (processes * parts) == 0:
        return run
    if BATCH not in given:
        unit = processes * (parts if PARTS in given else 1)
        batch = max(1, round(batch / unit)) * unit
    if PARTS not in given:
        parts = fewest(batch // processes, limit=run.loop.batch_size / (processes * parts))
    return dataclasses.replace(run, loop=dataclasses.replace(run.loop, batch_size=batch, accumulate=parts))


def fewest(rows: int, limit: float) -> int:
    """The fewest equal parts of at most `limit` rows each, or of one: parts save memory."""
    return next((n for n in range(1, rows + 1) if rows % n == 0 and rows / n <= max(limit, 1)), 1)
