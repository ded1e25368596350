"""Stands before every request: no file outside the jail, no foreign address, no flood, no oversized body."""

import time
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from gradio.utils import get_upload_folder

from studio import assets
from studio.errors import StudioError
from ui.workspace import Workspace

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
FILE = "/gradio_api/file="
POSTS_A_MINUTE = 900
"""More changes than people and pages make; floods end here."""
MAX_PROMPT, MAX_PROMPTS, MAX_PICTURES = 2000, 32, 64
_POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'self'; base-uri 'self'; "
    "form-action 'self'"
)
_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
    (b"x-frame-options", b"SAMEORIGIN"),
    (b"content-security-policy", _POLICY.encode()),
)


class Guard:
    """ASGI middleware around the page's server."""

    def __init__(self, app: Any, workspace: Workspace, *, max_bytes: int) -> None:
        self._app, self._workspace, self._max_bytes = app, workspace, max_bytes
        self._posts: dict[str, deque[float]] = defaultdict(deque)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or pass on with headers that keep the page to itself."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if refusal := self._refusal(scope):
            await _answer(send, *refusal)
            return

        async def with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                present = {name.lower() for name, _ in message["headers"]}
                message["headers"] = [*message["headers"], *(h for h in _HEADERS if h[0] not in present)]
            await send(message)

        await self._app(scope, receive, with_headers)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        headers = dict(scope["headers"])
        if int(headers.get(b"content-length", b"0") or 0) > self._max_bytes:
            return 413, "The upload is too large."
        if scope["method"] == "POST" and self._floods((scope.get("client") or ("",))[0]):
            return 429, "Too many requests; wait a minute."
        path = unquote(scope["path"])
        named = path.partition("file=")[2] if "file=" in path else None
        if named is not None and not self._may_read(named):
            return 403, "This file lies outside of the allowed folder."
        return None

    def _floods(self, client: str) -> bool:
        recent, now = self._posts[client], time.monotonic()
        while recent and now - recent[0] > 60:
            recent.popleft()
        recent.append(now)
        return len(recent) > POSTS_A_MINUTE

    def _may_read(self, named: str) -> bool:
        text = unquote(named)  # also what was encoded twice
        if "\0" in text or "://" in text or ".." in Path(text).parts or not text.startswith("/"):
            return False
        found = Path(text).resolve()
        uploads, private = Path(get_upload_folder()).resolve(), self._workspace.jobs.root
        if found.name.endswith((".sqlite", ".sqlite-wal", ".sqlite-shm")) or found == private:
            return False
        hidden = any(
            part.startswith(".") and part != ".studio" for part in _below(found, self._workspace.root)
        )
        return (self._workspace.holds(found) and not hidden) or uploads in found.parents


def _below(path: Path, root: Path) -> tuple[str, ...]:
    return path.relative_to(root).parts if root in path.parents else ()


async def _answer(send: Send, status: int, text: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), *_HEADERS]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})


def check_request(values: dict[str, Any]) -> None:
    """Refuse a request for pictures that is too large.

    Raises:
        StudioError: Names the setting and its limit.
    """
    prompts = values["prompt"]
    if len(prompts) > MAX_PROMPTS:
        raise StudioError(f"There are {len(prompts)} prompts; {MAX_PROMPTS} are allowed.", field="prompt")
    longest = max((len(text) for text in [*prompts, values["negative"]]), default=0)
    if longest > MAX_PROMPT:
        raise StudioError(f"A prompt has {longest} characters; {MAX_PROMPT} are allowed.", field="prompt")
    count = len(prompts) * values["num_images"]
    if count > MAX_PICTURES:
        raise StudioError(f"{count} pictures were asked for; {MAX_PICTURES} are allowed.", field="num_images")
    for name, limit in (("steps", 500), ("width", 4096), ("height", 4096)):
        if values[name] > limit:
            raise StudioError(f"{name} {values[name]} is too much; {limit} is allowed.", field=name)


def readable() -> list[str]:
    """Further folders that Gradio's own file route serves."""
    return [str(assets.root().resolve())]
