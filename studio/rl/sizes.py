"""Sizes of a run that learns from rollouts: those that nobody gave follow those that were given. No torch.

A rollout is whole groups and whole batches of pictures. A picture gives a batch as many rows as sampler steps of it are
learned from; each process takes as many rows, and cuts them into equal parts:

    images = groups x group = batches x batch_size,     batch_size x learned steps = processes x parts x rows of a part
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Set
from typing import TYPE_CHECKING, Any

from studio.catalog import parts
from studio.catalog.parts import BATCH, PARTS, PROCESSES
from studio.errors import StudioError
from studio.rl.config import GroupAdvantage, Reinforced
from studio.settings import serial

if TYPE_CHECKING:
    from studio.catalog.run import Run

IMAGES, GROUP = "method.rollouts.images", "method.rollouts.group"
Values = Mapping[str, int]
"""Sizes by dotted name."""
NEAR = 32
"""Numbers of batches or groups that are tried on both sides of what a rollout had."""


@dataclasses.dataclass(frozen=True)
class Clash:
    """Two given sizes that do not go together, and why; one where a size cannot stand by itself."""

    names: tuple[str, ...]
    why: str


def learned_steps(settings: Reinforced) -> int:
    """Sampler steps of each picture that are learned from."""
    steps = settings.rollouts.steps - (not settings.ppo.last_step)
    return max(1, round(settings.ppo.fraction * steps))


def follow(run: "Run", given: Set[str]) -> "Run":
    """The run with sizes that go together: given ones as they are, the others as near to what they were as can be.

    Args:
        run: Whose method is `Reinforced`.
        given: Dotted names of the settings that a person gave.

    Raises:
        StudioError: Given sizes do not go together; names them, and what would.
    """
    solver = Solver(run.method)
    values = _values(run)
    found = solver.fitted(values, given)
    if clash := solver.clash(found, given):
        raise _refusal(solver, values, given, clash)
    return _with(run, found)


def brief(run: "Run") -> "Run":
    """The run with one part of a batch and one drawing as they are, and nothing more: what it holds, in little time."""
    rollouts, learned = run.method.rollouts, learned_steps(run.method)
    rows = run.loop.batch_size * learned // (run.hardware.num_processes * run.loop.accumulate)
    images = math.lcm(rows, rollouts.group)
    images *= math.ceil(min(rollouts.chunk, rollouts.images) / images)
    one_step = dataclasses.replace(run.method.ppo, fraction=1.0)
    drawn = dataclasses.replace(rollouts, images=images, steps=1 + (not one_step.last_step))
    return dataclasses.replace(
        run,
        method=dataclasses.replace(run.method, rollouts=drawn, ppo=one_step),
        loop=dataclasses.replace(run.loop, batch_size=rows, accumulate=1),
    )


def upgraded(values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a run from before `ppo.last_step`, when the last step was learned from and batches counted rows."""
    flat = serial.flatten(values)
    if "method.ppo.last_step" in flat:
        return dict(values)
    rows = max(1, round(flat.get("method.ppo.fraction", 1) * flat.get("method.rollouts.steps", 1)))
    pictures, rest = divmod(flat.get("loop.batch_size", rows), rows)
    counted = {} if rest else {"loop": {"batch_size": pictures}}
    return serial.merge(values, {"method": {"ppo": {"last_step": True}}, **counted})


class Solver:
    """What goes together for a method's settings."""

    def __init__(self, settings: Reinforced) -> None:
        self._rows = learned_steps(settings)
        self._least = 2 if isinstance(settings.advantage, GroupAdvantage) else 1

    def clash(self, sizes: Values, given: Set[str]) -> Clash | None:
        """The first rule that sizes break; named after given ones."""
        return next(self._clashes(sizes, given), None)

    def fitted(self, sizes: Values, given: Set[str]) -> Values:
        """Sizes whose others follow the given ones; given ones may still clash."""
        if self.clash(sizes, given | sizes.keys()) is None:
            return sizes
        found = dict(sizes)
        unit = self._unit(sizes, given)
        if not {IMAGES, GROUP} <= given:
            found |= self._pictures(sizes, given, sizes[BATCH] if BATCH in given else unit)
        if BATCH not in given:
            fitting = [n for n in range(unit, found[IMAGES] + 1, unit) if found[IMAGES] % n == 0]
            found[BATCH] = min(fitting, key=lambda n: _ratio(n, sizes[BATCH]), default=sizes[BATCH])
        if PARTS not in given:
            found[PARTS] = parts.fewest(self._share(found), limit=self._share(sizes) / sizes[PARTS])
        return found

    def _clashes(self, sizes: Values, given: Set[str]) -> Iterator[Clash]:
        images, group, batch = sizes[IMAGES], sizes[GROUP], sizes[BATCH]
        processes, unit = sizes[PROCESSES], self._unit(sizes, given)
        if group < self._least:
            why = (
                f"{_said(GROUP, group)} is too few for group-advantage, which compares pictures of one prompt"
            )
            yield Clash((GROUP,), why)
        if images % group:
            yield Clash((GROUP, IMAGES), f"{_not_whole(sizes, IMAGES, GROUP)}, and a rollout is whole groups")
        if BATCH not in given and images % unit:
            names = (PARTS if PARTS in given and unit > processes else PROCESSES, IMAGES)
            yield Clash(names, self._unequal(sizes, IMAGES))
        if batch % processes:
            why = f"{_not_whole(sizes, BATCH, PROCESSES)}, each of which takes as many pictures"
            yield Clash((PROCESSES, BATCH), why)
        if images % batch:
            yield Clash(
                (BATCH, IMAGES), f"{_not_whole(sizes, IMAGES, BATCH)}, and a rollout is whole batches"
            )
        if self._share(sizes) % sizes[PARTS]:
            yield Clash((PARTS, BATCH), self._unequal(sizes, BATCH))

    def _unit(self, sizes: Values, given: Set[str]) -> int:
        """What pictures of a batch are a multiple of, whatever their number: for equal shares and given parts."""
        cut = sizes[PARTS] // math.gcd(sizes[PARTS], self._rows) if PARTS in given else 1
        return sizes[PROCESSES] * cut

    def _share(self, sizes: Values) -> int:
        """Rows of a batch that a process takes."""
        return sizes[BATCH] // sizes[PROCESSES] * self._rows

    def _unequal(self, sizes: Values, name: str) -> str:
        return (
            f"{_said(name, sizes[name])} with {self._rows} learned steps a picture cannot be cut into equal parts by "
            f"{_said(PARTS, sizes[PARTS])} in {_said(PROCESSES, sizes[PROCESSES])}"
        )

    def _pictures(self, sizes: Values, given: Set[str], step: int) -> Values:
        """Pictures a rollout, a multiple of `step`, and pictures of a prompt, near to what they were."""
        images, group = sizes[IMAGES], sizes[GROUP]
        base = math.lcm(step, group if GROUP in given else 1)
        near = max(1, round(images / base))
        many = (base * n for n in range(max(1, near - NEAR), near + NEAR))
        pairs = [
            (count, each)
            for count in ([images] if IMAGES in given else many)
            for each in ([group] if GROUP in given else (*range(self._least, 4 * group), count))
            if count % each == 0 and each >= self._least
        ]
        best = min(pairs, key=lambda pair: _ratio(pair[0], images) * _ratio(pair[1], group), default=None)
        return {IMAGES: best[0], GROUP: best[1]} if best else {}


def _refusal(solver: Solver, values: Values, given: Set[str], clash: Clash) -> StudioError:
    """Names what clashes, and what works in its place: as little of what was given is changed as can be."""
    names = clash.names
    attempts = [
        [given - {name} for name in names],
        [given - {*names}],
        [given - {*names, IMAGES}],
        [{PROCESSES}],
    ]
    tried = ([solver.fitted(values, kept) for kept in attempt] for attempt in attempts)
    works = next(
        filter(None, ([found for found in each if not solver.clash(found, found.keys())] for each in tried))
    )
    best = min(works, key=lambda found: math.prod(_ratio(found[n], values[n]) for n in values if n in given))
    changed = [name for name in values if name in given and best[name] != values[name]]
    told = [_said(name, best[name]) for name in dict.fromkeys([*changed, *names])]
    advice = " with ".join([told[0], ", ".join(told[1:])] if told[1:] else told)
    return StudioError(f"{clash.why}; choose {advice}.", field=changed[0].removeprefix("method."))


def _values(run: "Run") -> Values:
    rollouts = run.method.rollouts
    return {
        IMAGES: rollouts.images,
        GROUP: rollouts.group,
        BATCH: run.loop.batch_size,
        PARTS: run.loop.accumulate,
        PROCESSES: run.hardware.num_processes,
    }


def _with(run: "Run", sizes: Values) -> "Run":
    rollouts = dataclasses.replace(run.method.rollouts, images=sizes[IMAGES], group=sizes[GROUP])
    return dataclasses.replace(
        run,
        method=dataclasses.replace(run.method, rollouts=rollouts),
        loop=dataclasses.replace(run.loop, batch_size=sizes[BATCH], accumulate=sizes[PARTS]),
    )


def _said(name: str, value: int) -> str:
    return f"{name.removeprefix('method.')} {value}"


def _not_whole(sizes: Values, one: str, other: str) -> str:
    return f"{_said(one, sizes[one])} is not a multiple of {_said(other, sizes[other])}"


def _ratio(one: int, other: int) -> float:
    """How many times as large the larger one is."""
    return max(one / other, other / one)
