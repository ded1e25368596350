"""A run that runs out of memory says what would help: the flags of what saves memory, with what each costs."""

import torch

from studio.catalog.run import Run
from studio.errors import RunFailed
from studio.training.savers import changes

_SAID = ("can't allocate memory", "not enough memory", "out of memory")
"""What torch says where it has no class of its own for it: on a CPU, on a Mac."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error is one of memory."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _SAID)


def explained(error: Exception, run: Run, step: int) -> Exception:
    """The error; one of memory as a sentence that names the flags that would help.

    Args:
        error: What ended the run.
        run: Its settings.
        step: The last step that was finished.
    """
    if not is_out_of_memory(error):
        return error
    last = list(changes(run))[-1:]
    advice = (
        f"go on with what saves memory, the cheapest first: {last[0]}"
        if last
        else "all that saves memory is on; take a smaller model, resolution or adapter"
    )
    return RunFailed(
        f"Memory ran out in step {step + 1} of a batch of {run.loop.batch_size // run.loop.accumulate} at a time; step {step} "
        f"is kept. Resume the run, and {advice}."
    )
