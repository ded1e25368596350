"""`studio models inspect`."""

import json
import subprocess
import sys

from tests.checkpoint_kinds import sdxl


def inspected(*words):
    code = "from studio.cli import main; main()"
    run = [sys.executable, "-c", code, "models", "inspect", *words]
    return subprocess.run(run, capture_output=True, text=True, check=False)


def test_inspect_says_what_a_file_is_and_whether_it_loads(tmp_path):
    found = inspected(str(sdxl("v_pred")(tmp_path)), "--json")
    told = json.loads(found.stdout.splitlines()[0])
    assert found.returncode == 0
    assert (told["variant"], told["predicts"], told["loads"]) == ("sdxl", "v_prediction", True)
    refused = inspected(str(sdxl("edm_mean")(tmp_path)))
    assert refused.returncode == 1
    assert "Playground 2.5" in refused.stdout
