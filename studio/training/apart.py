"""The simulated device in a process of its own: torch has to know the device before the first backward pass of a process.

The process reads runs as JSON, one a line, and answers each with one line; its log goes where this process's goes.
"""

import dataclasses
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

from studio.catalog.run import Run
from studio.errors import RunFailed, StudioError
from studio.training.measured import Look, Measured, Phase


@contextmanager
def simulating() -> Iterator[Look]:
    """Gives `simulate` that works in another process, which ends with the context."""
    command = [sys.executable, "-m", "studio.training.apart"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:

        def look(run: Run, *, exports: bool = True) -> Measured:
            return _asked(process, {"run": run.to_dict(), "exports": exports})

        try:
            yield look
        finally:
            process.kill()


def _asked(process: "subprocess.Popen[str]", question: dict[str, Any]) -> Measured:
    sent, answers = process.stdin, process.stdout
    if sent is None or answers is None:
        raise AssertionError("both are pipes")
    sent.write(json.dumps(question) + "\n")
    sent.flush()
    line = answers.readline()
    if not line:
        raise RunFailed(f"The simulated device ended with code {process.wait()}; its message is above.")
    told = json.loads(line)
    if "error" in told:
        raise StudioError(told["error"], field=told["field"])
    phases = tuple(Phase(**each) for each in told.pop("phases"))
    return Measured(phases=phases, **told)


def _answered(line: str) -> dict[str, Any]:
    from studio.training.simulate import simulate

    asked = json.loads(line)
    try:
        found = simulate(Run.from_dict(asked["run"]), exports=asked["exports"])
    except StudioError as error:
        return {"error": str(error), "field": error.field}
    return dataclasses.asdict(found)


def _serve(questions: IO[str], answers: IO[str]) -> None:
    from studio.backend.quiet import quiet

    quiet()
    sys.stdout = sys.stderr  # what libraries print is no answer
    for line in questions:
        answers.write(json.dumps(_answered(line)) + "\n")
        answers.flush()


if __name__ == "__main__":
    _serve(sys.stdin, sys.stdout)
