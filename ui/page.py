"""What the pages share: the workspace, the tabs, the picked run, refusals at their field, and following a job."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

from studio.errors import StudioError
from studio.queue.jobs import Job
from ui import parts
from ui.config import App
from ui.theme import PICK
from ui.uploads import store
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
        self.form: list[Any]
        """What settings fill in on the Train page; set by that page."""
        self.timer: gr.Timer
        """What keeps the Runs page up to date while it is open; set by that page."""
        self.here: dict[str, gr.Tab] = {}
        """The pages by name."""

    def when_opened(self, name: str, function: Callable[..., Any], outputs: Any, inputs: Any = None) -> None:
        """Fill components anew whenever a page is opened."""
        for opened in (self.here[name].select, self.blocks.load):
            opened(function, inputs, outputs, **QUICK)

    def act(
        self, trigger: Any, function: Callable[..., Any], inputs: Any, outputs: Sequence[Any], **how: Any
    ) -> Any:
        """What a person can do; a mistake is told in the first output and at its field, the others stay."""

        @functools.wraps(function)
        def careful(*given: Any) -> Any:
            try:
                return function(*given)
            except StudioError as error:
                told = parts.refusal(error)
                return [told, *[gr.skip()] * (len(outputs) - 1)] if len(outputs) > 1 else told

        return gr.on(trigger, careful, inputs, list(outputs), **how)

    def upload(self, folder: gr.Dropdown, told: gr.HTML, **options: Any) -> gr.File:
        """A place to drop pictures: they become a folder, which is chosen."""
        kinds = ["image", ".txt", ".caption", ".zip"]
        box = gr.File(
            file_count="multiple", file_types=kinds, show_label=False, label="Upload", height=128, **options
        )

        def take(files: Sequence[str]) -> Any:
            name = self.workspace.relative(store(files, self.workspace, self.settings))
            chosen = gr.Dropdown(choices=self.workspace.picture_folders(), value=name)
            return parts.note(f"Uploaded to {name}.", "good"), chosen, None

        self.act(box.upload, take, box, [told, folder, box], **SETS)
        return box

    def told(self, number: int) -> str:
        """How far a job is, as a block of page."""
        return self.block(self.workspace.jobs.get(number))

    def block(self, job: Job) -> str:
        """A job as a block of page, with how many of its device are before it."""
        waiting = [each.id for each in self.workspace.jobs.queue() if each.device == job.device]
        running = [each for each in self.workspace.jobs.running() if each.device == job.device]
        place = waiting.index(job.id) if job.id in waiting else 0
        return parts.job(self.workspace, job, place, running=len(running))

    def follow(self, watched: gr.State, shown: Sequence[Any], done: Callable[[Job], Any]) -> None:
        """Show a job's progress in the first component until it ends, and then what `done` makes of it in all.

        Args:
            watched: Holds the job's number, 0 for none.
            shown: What `done` fills.
            done: Gives a value for each of `shown`.
        """
        timer = gr.Timer(SECONDS, active=False)

        def look(number: int) -> Any:
            if not number:
                return [*[gr.skip()] * len(shown), gr.Timer(active=False)]
            job = self.workspace.jobs.get(number)
            rest = [gr.skip()] * (len(shown) - 1)
            found = done(job) if job.state == "done" else [self.told(number), *rest]
            return [*found, gr.Timer(active=job.is_open)]

        for look_again in (watched.change, timer.tick):
            look_again(look, watched, [*shown, timer], **SETS)
        self.manages(shown[0])

    def manages(self, shown: gr.HTML) -> None:
        """Let the buttons in a job's block work."""
        shown.click(self._manage, None, None, **QUICK)

    def _manage(self, event: gr.EventData) -> None:
        verb, _, number = picked(event).partition(" ")
        if verb == "stop":
            self.workspace.jobs.stop(int(number))
        elif verb == "earlier":
            self.workspace.jobs.move(int(number), up=True)


def clickable(name: str, **options: Any) -> gr.HTML:
    """A place for HTML in which things can be picked."""
    return gr.HTML(js_on_load=PICK, elem_id=name, **options)


def picked(event: gr.EventData) -> str:
    """What a person picked in such a place."""
    return str(event._data.get("pick", ""))
