"""Settings of every test: one thread's results, no network, GPU tests that skip themselves."""

import os
import tempfile

# Before torch and the hub are imported: tests never reach for a network, and small tensors need no threads.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
os.environ.setdefault("WANDB_MODE", "offline")
# Runs are tracked by Trackio where it is installed; those of tests must not fill the person's own dashboard.
_tracked = tempfile.TemporaryDirectory(prefix="trackio-", ignore_cleanup_errors=True)
os.environ.setdefault("TRACKIO_DIR", _tracked.name)

from jaxtyping import install_import_hook  # noqa: E402

# Shapes and types are checked at run time, by tests alone.
install_import_hook(["studio", "trainers"], "tests.checks.check")

import pytest  # noqa: E402
import torch  # noqa: E402

from studio.backend.simulated.device import install, missing  # noqa: E402

if not missing():  # torch takes no device after the first gradient of a process
    install()


@pytest.fixture(autouse=True)
def _one_thread():
    """Tiny models are faster on one thread, and sums keep their order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests that need a GPU where there is none."""
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
