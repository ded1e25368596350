"""Random numbers on the device and on the CPU."""

from studio.backend.rng import Rng
from studio.backend.simulated.mode import machine


def test_what_python_decides_by_is_drawn_on_the_cpu_in_the_same_order():
    with machine() as here:
        rng, plain = (Rng.single(0, 1, 4, device) for device in (here.device, "cpu"))
        rng.normal(4, 2)
        plain.normal(4, 2)
        assert rng.at("cpu").uniform(4).tolist() == plain.uniform(4).tolist()
        assert rng.uniform(4).device == here.device
        assert here.reads == 0
