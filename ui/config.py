"""Settings of the app. No torch."""

from typing import Annotated

from pydantic import Field

from studio.errors import StudioError
from studio.settings.config import Positive, config

LOOPBACK = ("127.0.0.1", "localhost", "::1")


@config
class App:
    """Open the studio in a browser."""

    host: str = "127.0.0.1"
    """Address to listen on; any other than this machine's own needs --auth."""
    port: Annotated[int, Field(ge=0, le=65535)] = 7860
    """Port; 0 takes a free one."""
    root: str = "."
    """Folder that the app may read and write: runs, samples, uploads and data folders lie in it."""
    auth: str = ""
    """Name and password, as NAME:PASSWORD, that the page asks for; also read from STUDIO_AUTH."""
    upload_mb: Positive = 64
    """Largest file that can be uploaded, in megabytes."""
    upload_files: Positive = 500
    """Most files in one upload, in an archive too."""
    upload_megapixels: Positive = 64
    """Largest uploaded picture, in millions of pixels."""

    def __post_init__(self) -> None:
        """Refuse an open door.

        Raises:
            StudioError: The address is reachable from elsewhere and there is no password, or it is too short.
        """
        name, _, password = self.auth.partition(":")
        if self.auth and (not name or len(password) < 8):
            raise StudioError(
                "auth must be NAME:PASSWORD with a password of 8 characters or more.", field="auth"
            )
        if self.host not in LOOPBACK and not self.auth:
            raise StudioError(
                f"host {self.host!r} can be reached from other machines; give --auth NAME:PASSWORD, or set "
                "STUDIO_AUTH, or keep --host 127.0.0.1.",
                field="auth",
            )
