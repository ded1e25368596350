"""`studio ui`: the app in the browser. Its settings are read before gradio's seconds."""

import os

from studio.console import Console
from studio.flags import flags
from ui.config import App


def command(argv: list[str], console: Console) -> None:
    """Open the app: `studio ui [--port 7860] [--root DIR]`."""
    given = os.environ.get("STUDIO_AUTH", "")  # a password in a flag can be read in the list of processes
    settings: App = flags.parse(App, argv, prog="studio ui", values={"auth": given} if given else {})
    from ui.app import serve

    serve(settings, console)
