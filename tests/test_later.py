"""Imports that are put off: nothing runs until it is used, and then everything is there."""

import importlib.util
import inspect
import subprocess
import sys

from studio.backend.later import later

USED = """
import sys
from studio.backend.quiet import quiet
quiet()
from diffusers import FlowMatchEulerDiscreteScheduler as Euler
ran = [name for name in sys.modules if name.startswith("scipy.stats.")]
assert not ran, ran
scheduler = Euler(use_beta_sigmas=True)
scheduler.set_timesteps(4)
assert len(scheduler.sigmas) == 5
assert "scipy.stats._continuous_distns" in sys.modules
import scipy.stats
assert scipy.stats.norm.cdf(0.0) == 0.5
print("all there")
"""


def test_schedulers_get_scipys_distributions_when_they_ask():
    found = subprocess.run([sys.executable, "-c", USED], capture_output=True, text=True, check=False)
    assert found.stdout == "all there\n", found.stderr


def test_looking_through_all_modules_runs_nothing():
    name = "wave"  # of the standard library, and seldom imported
    sys.modules.pop(name, None)
    later(name)
    waiting = sys.modules[name]
    assert importlib.util.find_spec(name) is not None
    assert inspect.getmodule(later) is sys.modules["studio.backend.later"]
    assert not hasattr(waiting, "__warningregistry__")
    assert sys.modules[name] is waiting
    assert waiting.Error is sys.modules[name].Error
    assert sys.modules[name] is not waiting


def test_what_is_there_or_missing_stays_so():
    later("sys")
    assert sys.modules["sys"] is sys
    later("no_module_of_this_name")
    assert "no_module_of_this_name" not in sys.modules
