"""What a run holds and takes, by phase: measured on this machine, or counted on the simulated device."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from studio.settings.memory import said

GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One part of a run.

    Attributes:
        name: load, prepare, train, preview, save, export.
        gib: Highest memory, of the GPU or on a CPU of the process.
        seconds: Time, where it was measured.
        kinds: What the memory held at that moment, by kind, where that is known.
        host_gib: Models in the machine's own memory beside a GPU, where that is known.
    """

    name: str
    gib: float
    seconds: float | None = None
    kinds: Mapping[str, float] = field(default_factory=dict[str, float])
    host_gib: float = 0.0

    def line(self) -> str:
        """The phase for people."""
        told = [f"{said(self.gib)} peak"]
        if self.kinds:
            told[0] += f" ({', '.join(f'{kind} {said(size)}' for kind, size in self.kinds.items())})"
        if self.seconds is not None:
            told.append(f"{self.seconds:.2f} s")
        if self.host_gib:
            told.append(f"{said(self.host_gib)} of models in RAM")
        return ", ".join(told)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a run took: time and peak memory by phase, size on disk."""

    phases: tuple[Phase, ...]
    step_seconds: float
    checkpoint_gib: float
    export_gib: float

    @property
    def peak_gib(self) -> float:
        """Highest memory of all phases."""
        return max(phase.gib for phase in self.phases)

    @property
    def host_gib(self) -> float:
        """Highest memory of models on the host."""
        return max(phase.host_gib for phase in self.phases)


Look = Callable[..., Measured]
"""What a run holds, measured or counted: (run, *, exports) -> Measured; without `exports` perhaps without the export."""
