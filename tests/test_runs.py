"""Files of a run."""

import stat

import torch
from safetensors.torch import save_file

from studio.records.runs import share


def _mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_weights_can_be_read_by_those_who_can_read_their_folder(tmp_path):
    shared, own = tmp_path / "shared", tmp_path / "own"
    for folder, mode in ((shared, 0o755), (own, 0o700)):
        (folder / "unet").mkdir(parents=True)
        save_file({"weight": torch.ones(2)}, folder / "unet" / "model.safetensors")
        (folder / "unet").chmod(mode)
        share(folder)
    assert _mode(shared / "unet" / "model.safetensors") == 0o644
    assert _mode(own / "unet" / "model.safetensors") == 0o600


def test_one_file_can_be_shared(tmp_path):
    tmp_path.chmod(0o750)
    path = tmp_path / "adapter.safetensors"
    save_file({"weight": torch.ones(2)}, path)
    share(path)
    assert _mode(path) == 0o640
