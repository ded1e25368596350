"""Blueprint keeps what every method keeps: `pytest blueprint`."""

from studio.testing import Contract


class TestContract(Contract):
    """The tests of `studio.testing`, over the settings in case.py."""

    method = "blueprint"
