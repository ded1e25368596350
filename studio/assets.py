"""Where the embedded models, sample pictures and stylesheets lie: in a checkout and in an installed wheel."""

from pathlib import Path

from studio.errors import unknown

_PACKAGE = Path(__file__).parent
_CHECKOUT = _PACKAGE.parent / "assets"
_INSTALLED = _PACKAGE / "_assets"


def root() -> Path:
    """The folder of all assets."""
    return _INSTALLED if _INSTALLED.is_dir() else _CHECKOUT


def path(name: str) -> Path:
    """The file or folder `name` (such as ``samples/unicorn``) among the assets.

    Raises:
        StudioError: There is none; the message lists what lies in its folder.
    """
    found = root() / name
    if found.exists():
        return found
    beside = [entry.name for entry in found.parent.iterdir()] if found.parent.is_dir() else []
    raise unknown(f"asset in {found.parent.name!r}", found.name, beside)


def exists(name: str) -> bool:
    """Whether the assets hold `name`."""
    return (root() / name).exists()
