"""What the pages share: the workspace, the tabs, the picked run, and following a job until it ends."""

import functools
from collections.abc import Callable
from typing import Any

import gradio as gr

from studio.errors import StudioError
from studio.jobs import Job
from ui import parts
from ui.config import App
from ui.workspace import Workspace

SECONDS = 1.5
"""Between two looks at what goes on."""

QUICK: dict[str, Any] = {"queue": False, "show_progress": "hidden"}
"""Events that only show something: answered at once, past the queue."""
SETS: dict[str, Any] = {"show_progress": "hidden"}
"""Events that set a state which others follow: Gradio tells of such changes only through its queue."""


class Page:
    """The app being built."""

    def __init__(self, blocks: gr.Blocks, workspace: Workspace, settings: App) -> None:
        self.blocks, self.workspace, self.settings = blocks, workspace, settings
        self.tabs = gr.Tabs(selected="train", elem_id="tabs", render=False)
        self.picked = gr.State("", render=False)
        """Name of the run that the Runs page shows."""
        self.shape: gr.State
        """What the Train page's form is drawn from; set by that page."""
        self.timer: gr.Timer
        """What keeps the Runs page up to date while it is open; set by that page."""
        self.here: dict[str, gr.Tab] = {}
        """The pages by name."""

    def on_load(self, function: Callable[..., Any], outputs: list[Any]) -> None:
        """Fill components anew whenever the page is opened."""
        self.blocks.load(function, None, outputs, queue=False, show_progress="hidden")

    def told(self, job: int) -> str:
        """How far a job is, as a block of page; nothing for job 0."""
        if not job:
            return ""
        found = self.workspace.jobs.get(job)
        return parts.job(self.workspace, found, self.place(found))

    def place(self, job: Job) -> int:
        """How many jobs of its device are before a waiting one."""
        if job.state != "queued":
            return 0
        waiting = [each.id for each in self.workspace.jobs.queue() if each.device == job.device]
        running = [each for each in self.workspace.jobs.running() if each.device == job.device]
        return waiting.index(job.id) + len(running) if job.id in waiting else 0

    def follow(self, watched: gr.State, shown: gr.HTML, told: Callable[[int], str]) -> None:
        """Show a job's progress until it ends; `watched` holds its number, 0 for none."""
        timer = gr.Timer(SECONDS, active=False)

        def look(job: int) -> Any:
            ended = not job or not self.workspace.jobs.get(job).is_open
            return told(job) if job else gr.skip(), gr.Timer(active=not ended)

        watched.change(look, watched, [shown, timer], queue=False, show_progress="hidden")
        timer.tick(look, watched, [shown, timer], queue=False, show_progress="hidden")


def shown_error(function: Callable[..., Any]) -> Callable[..., Any]:
    """A person's mistake becomes a message on the page."""

    @functools.wraps(function)
    def careful(*given: Any) -> Any:
        try:
            return function(*given)
        except StudioError as error:
            raise gr.Error(str(error), duration=12, title="That does not work") from None

    return careful
