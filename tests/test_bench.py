"""The benchmarks know every adapter, and their tables say what was measured."""

from studio.adapters import config as c
from studio.bench.adapters import Line, shelf, table
from studio.bench.orthogonal import Row
from studio.bench.orthogonal import table as times


def test_every_adapter_has_a_line_in_the_table():
    assert {type(one) for one in shelf().values()} == set(c.Adapter.__args__)


def test_table_of_adapters_tells_zero_from_rounding():
    text = table({"lora": Line(10, 0.0, 2.4e-7, "studio", 1.0)})
    assert text.splitlines()[-1] == "| lora | 10 | 1.00 | 0 | 2e-07 | studio |"


def test_table_of_times_has_ratios_and_what_is_added():
    row = Row(256, 320, 1, {"frozen": 0.001, "PEFT LoRA r16": 0.002, "our OFT b32": 0.003})
    assert times([row]).splitlines()[-1] == "| our OFT b32 | 3.0 ms (1.50, +2.0) |"
