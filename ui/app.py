"""The app: its pages put together, and the server that shows them. No torch in this process."""

import contextlib
import functools
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr
from starlette.middleware import Middleware

from studio.console import Console
from studio.errors import StudioError
from studio.queue.supervisor import Supervisor
from ui import theme
from ui.config import LOOPBACK, App
from ui.data import DataPage
from ui.evaluate import EvaluatePage
from ui.guard import Guard, readable
from ui.page import QUICK, Page
from ui.runs import RunsPage
from ui.sample import SamplePage
from ui.shelf import ShelfPage
from ui.train import TrainPage
from ui.workspace import Workspace

log = logging.getLogger(__name__)
PAGES: dict[str, tuple[str, Callable[[Page], object]]] = {
    "train": ("Train", TrainPage),
    "runs": ("Runs", RunsPage),
    "sample": ("Sample", SamplePage),
    "data": ("Data", DataPage),
    "evaluate": ("Evaluate", EvaluatePage),
    "shelf": ("Models", ShelfPage),
}
_HEAD = '<div class="masthead"><h1>Studio</h1><p>Finetune image models, watch them learn, draw with them.</p></div>'


def build(workspace: Workspace, settings: App) -> gr.Blocks:
    """All pages."""
    with gr.Blocks(title="Studio", analytics_enabled=False, fill_width=True) as blocks:
        gr.HTML(_HEAD)
        page = Page(blocks, workspace, settings)
        page.picked.render()
        page.tabs.render()
        with page.tabs:
            for name, (title, draw) in PAGES.items():
                with gr.Tab(title, id=name, elem_id=f"tab-{name}") as tab:
                    page.here[name] = tab
                    draw(page)
        for name, tab in page.here.items():  # a page that nobody looks at asks for nothing
            tab.select(functools.partial(gr.Timer, active=name == "runs"), None, page.timer, **QUICK)
        blocks.load(_opened, None, page.tabs, **QUICK)
    return blocks.queue(default_concurrency_limit=8, api_open=False)


def _opened(request: gr.Request) -> Any:
    """The page that the address names: /?view=runs."""
    wanted = request.query_params.get("view", "")
    return gr.Tabs(selected=wanted) if wanted in PAGES else gr.skip()


def launch(workspace: Workspace, settings: App) -> tuple[gr.Blocks, str]:
    """Start serving; gives the app and its address.

    Raises:
        StudioError: The port is taken.
    """
    os.chdir(workspace.root)  # relative places in settings mean the workspace, as in its workers
    blocks = build(workspace, settings)
    name, _, password = settings.auth.partition(":")
    guard = Middleware(Guard, workspace=workspace, max_bytes=int(settings.upload_mb * 1e6 * 8))
    try:
        _, address, _ = blocks.launch(
            server_name=settings.host,
            server_port=settings.port or None,
            auth=(name, password) if settings.auth else None,
            auth_message="This studio asks for the name and password it was started with.",
            theme=theme.theme(),
            css=theme.css(),
            js=theme.SCRIPT,
            allowed_paths=[str(workspace.root), *readable()],
            blocked_paths=[str(workspace.jobs.root / "jobs.sqlite")],
            max_file_size=int(settings.upload_mb * 1e6),
            app_kwargs={"middleware": [guard], "docs_url": None, "redoc_url": None},
            strict_cors=True,
            ssr_mode=False,
            share=False,
            run_history=False,
            enable_monitoring=False,
            footer_links=[],
            quiet=True,
            show_error=True,
            prevent_thread_lock=True,
        )
    except OSError as error:
        raise StudioError(
            f"Port {settings.port} cannot be used ({error}); choose another --port.", field="port"
        ) from None
    return blocks, address


def serve(settings: App, console: Console) -> None:
    """Serve the app until Ctrl-C. Runs go on without it."""
    started = time.perf_counter()
    workspace = Workspace(settings.root)
    if settings.host not in LOOPBACK:
        console.print(
            f"warning: {settings.host} can be reached from other machines; anyone with the password can train."
        )
    supervisor = Supervisor(workspace.jobs, cwd=workspace.root)
    blocks, address = launch(workspace, settings)
    console.print(
        f"Studio is at {address} ({time.perf_counter() - started:.1f} s). Ctrl-C closes the page; runs go on."
    )
    console.record({"event": "ui", "address": address, "root": str(Path(workspace.root))})
    with contextlib.suppress(KeyboardInterrupt):
        blocks.block_thread()
    supervisor.close()
