"""Keeps other libraries' chatter out of the command's output. Their errors still show."""

import logging
import warnings

from studio.backend.later import later

later("scipy.stats")  # takes 0.8 s; every scheduler imports it, for one kind of schedule ("beta")

import diffusers  # noqa: E402
import transformers  # noqa: E402


def quiet() -> None:
    """Silence progress bars, notices and warnings of diffusers and transformers, and deprecations of others."""
    diffusers.utils.logging.set_verbosity_error()
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    for category in (FutureWarning, DeprecationWarning):
        warnings.filterwarnings("ignore", category=category)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("studio").setLevel(logging.INFO)
    logging.getLogger("trainers").setLevel(logging.INFO)
