"""The option `--method` of `pytest --pyargs studio.testing --method my_package.my_method`, as a plugin of pytest.

It stands outside of the packages because pytest imports it at every start, wherever Studio is installed: that must cost
nothing, and jaxtyping's own plugin checks only packages that nothing has imported before it.
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
