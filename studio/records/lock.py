"""One process at a time works in a run folder, on network file systems too; what a dead one left gives way. No torch.

RUN/.lock is locked as far as the file system knows how, which ends with the process, and says who works: machine, process,
and a count that goes on while it does. On the same machine a look at the process decides; of another machine the count
does, watched for a while, so that no two clocks are ever compared.
"""

import contextlib
import json
import logging
import os
import socket
import threading
import time
import uuid
from pathlib import Path
from typing import Any

from studio.errors import RunFailed, StudioError
from studio.records.processes import Process, alive, me

try:
    import fcntl
except ImportError:  # Windows: the text of the file decides alone
    fcntl = None

log = logging.getLogger(__name__)
NAME = ".lock"
BEAT = 5.0
"""Seconds between two counts of who works."""
WATCH = 30.0
"""Seconds without a count after which a process of another machine is taken for dead."""
SETTLE = 0.3
"""Seconds after which the text of the file is looked at again where a file system knows no locks."""
_BOOT = Path("/proc/sys/kernel/random/boot_id")


class Taken(RunFailed):
    """Another process has taken over the run folder; this one must write nothing more."""


class Lock:
    """Holds a run folder from when it is made until it is closed.

    Args:
        folder: Of the run; made if it is not there.

    Raises:
        StudioError: Another process works there, or nothing can be written there.
    """

    def __init__(self, folder: Path) -> None:
        self._path, self._token, self._count = folder / NAME, uuid.uuid4().hex, 0
        try:
            self._file, self._knows = _opened(self._path)
        except OSError as error:
            raise StudioError(
                f"Cannot write to {str(folder)!r} ({error.strerror}); choose a writable --output.",
                field="output",
            ) from None
        self._take()
        self._closed, self._lost = threading.Event(), False
        self._thread = threading.Thread(target=self._beat, daemon=True, name="lock")
        self._thread.start()

    def require(self) -> None:
        """Refuse to go on once another process took over, as happens to one that a machine let stand for long.

        Raises:
            Taken: It did.
        """
        if self._lost:
            raise Taken(
                f"Run folder {str(self._path.parent)!r} was taken over by another process while this one stood still; "
                "nothing more is written by this one."
            )

    def close(self) -> None:
        """Let others work there; a folder that holds nothing goes too."""
        self._closed.set()
        self._thread.join()
        if not self._lost and _read(self._path).get("token") == self._token:
            self._path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # it holds something, as it should
                self._path.parent.rmdir()
        os.close(self._file)

    def _take(self) -> None:
        found = _read(self._path)
        try:
            if self._knows is False or (found and not _dead(self._path, found)):
                raise _busy(self._path.parent, found)
            with contextlib.suppress(OSError) if self._knows else contextlib.nullcontext():
                self._write()  # where the file is locked, a full disk only keeps it from saying by whom
            if self._knows is None:
                time.sleep(SETTLE)
                if _read(self._path).get("token") != self._token:
                    raise _busy(self._path.parent, _read(self._path))
        except BaseException:
            os.close(self._file)
            raise

    def _write(self) -> None:
        here = me()
        told = {"host": socket.gethostname(), "boot": _boot(), "pid": here.pid, "started": here.started}
        text = json.dumps(told | {"locks": bool(self._knows), "token": self._token, "count": self._count})
        os.pwrite(self._file, text.encode().ljust(512), 0)

    def _beat(self) -> None:
        while not self._closed.wait(BEAT):
            found = _read(self._path)
            if found and found.get("token") != self._token:
                self._lost = True
                return
            self._count += 1
            with contextlib.suppress(OSError):  # a full disk or a server that is away: the next count tells
                self._write()


def _opened(path: Path) -> tuple[int, bool | None]:
    """The file, and whether it is locked now; None where the file system knows no locks."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            file = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666)
        except FileNotFoundError:
            continue  # the folder went with who held it
        locked = _locked(file)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(path.stat(), os.fstat(file)):
                return file, locked
        os.close(file)  # who held it has left meanwhile and removed it


def _locked(file: int) -> bool | None:
    if fcntl is None:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _read(path: Path) -> dict[str, Any]:
    """Who works there; nothing if the file says nothing, as when its disk was full."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    kinds = {"host": str, "boot": str, "pid": int, "started": float, "token": str}
    sound = isinstance(found, dict) and all(isinstance(found.get(key), kind) for key, kind in kinds.items())
    return found if sound else {}


def _boot() -> str:
    """Of this machine's present run; empty where it does not say."""
    return _BOOT.read_text(encoding="utf-8").strip() if _BOOT.exists() else ""


def _dead(path: Path, found: dict[str, Any]) -> bool:
    """Whether who wrote the file works no more."""
    if found.get("host") == socket.gethostname():
        if found.get("boot") != _boot() or found.get("locks"):
            return True  # locks end with their process, and this one was there to take
        return not alive(Process(pid=found["pid"], started=found["started"]))
    log.warning(
        "%s was held by %s; looking for %g seconds whether it still works", path.parent, found["host"], WATCH
    )
    end = time.monotonic() + WATCH
    while time.monotonic() < end:
        time.sleep(min(1.0, WATCH / 5))
        if _read(path) != found:
            return False
    return True


def _busy(folder: Path, found: dict[str, Any]) -> StudioError:
    who = f"process {found.get('pid', 'of another run')} on {found.get('host', 'this machine')}"
    return StudioError(
        f"Run folder {str(folder)!r} is at work in {who}; wait for it or stop it, or choose another --name.",
        field="name",
    )
