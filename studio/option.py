"""The option `--method` of `pytest --pyargs studio.testing --method my_package.my_method`, as a plugin of pytest.

pytest imports it at every start, wherever Studio is installed: it brings nothing else along.
"""

import pytest

pytest.register_assert_rewrite("studio.testing")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option."""
    parser.getgroup("studio").addoption(
        "--method",
        default="",
        help="with --pyargs studio.testing: the method to test, as `studio train` takes it: an installed name, "
        "a dotted path, a folder or a file",
    )
