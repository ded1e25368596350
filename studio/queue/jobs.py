"""The queue of work: jobs in an SQLite file, which the app fills and worker processes empty. No torch.

FOLDER/ID/ holds a job's log, a copy of it and what it leaves to be shown. Every change is one transaction, so
pages, servers and workers may all use the file at the same time.
"""

import contextlib
import json
import logging
import sqlite3
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from studio.errors import StudioError
from studio.queue import mirror
from studio.queue.job import KINDS, LONG, Ask, Job, Kind, State, ask_of, job_of
from studio.records.processes import Process

log = logging.getLogger(__name__)
_SCHEMA = """
create table if not exists jobs (
    id integer primary key, kind text not null, title text not null, payload text not null, device text not null,
    state text not null default 'queued', position real not null, made real not null,
    begun real not null default 0, ended real not null default 0,
    pid integer not null default 0, started real not null default 0, heartbeat real not null default 0,
    wanted text not null default '', run text not null default '', progress real not null default 0,
    note text not null default '', error text not null default '', result text not null default '{}'
);
create table if not exists asks (
    id integer primary key, job integer not null, payload text not null, state text not null default 'queued',
    made real not null, ended real not null default 0, error text not null default '',
    result text not null default '{}'
);
create table if not exists holders (device text primary key, pid integer not null, started real not null);
"""


class Unusable(StudioError):
    """The queue's file cannot be used now: locked, full, removed or damaged. `broken`: it has to be made anew."""

    def __init__(self, root: Path, error: sqlite3.Error) -> None:
        super().__init__(
            f"The queue in {str(root)!r} cannot be used ({error}); free space, or choose a writable --root.",
            field="root",
        )
        number = getattr(error, "sqlite_errorcode", 0) & 0xFF
        self.broken = number in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB) or "no such table" in str(
            error
        )


class Jobs:
    """All jobs of a workspace."""

    def __init__(self, folder: str | Path) -> None:
        self.root = Path(folder).resolve()
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StudioError(
                f"Cannot keep jobs in {str(self.root)!r} ({error}); choose a writable --root.", field="root"
            ) from None
        self.repair()

    def repair(self) -> None:
        """Make the queue anew where its file is gone or damaged, from the copies of its jobs."""
        try:
            with self._open() as db:
                db.executescript(_SCHEMA)
                db.execute("select * from jobs limit 1").fetchall()
        except Unusable as error:
            if not error.broken:
                raise
            log.error("%s; it is set aside and made anew", error)  # noqa: TRY400  # its sentence says it
            mirror.set_aside(self.root)
            with self._open() as db:
                db.executescript(_SCHEMA)
        with self.writing() as db:
            if found := mirror.restore(db, self.root):
                log.warning("%d jobs were put back into the queue", found)

    def folder(self, job: int) -> Path:
        """Where a job leaves files."""
        path = self.root / str(job)
        path.mkdir(exist_ok=True)
        return path

    def log(self, job: int) -> Path:
        """What its worker printed."""
        return self.folder(job) / "log.txt"

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            with contextlib.closing(
                sqlite3.connect(self.root / mirror.DATABASE, timeout=20, isolation_level=None)
            ) as db:
                db.row_factory = sqlite3.Row
                db.execute("pragma journal_mode=wal")
                db.execute("pragma synchronous=normal")
                yield db
        except sqlite3.Error as error:
            raise Unusable(self.root, error) from error

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction, during which nobody else writes."""
        with self._open() as db:
            db.execute("begin immediate")
            try:
                yield db
            except BaseException:
                with contextlib.suppress(sqlite3.Error):  # a full disk has rolled back already
                    db.execute("rollback")
                raise
            db.execute("commit")

    def add(
        self, kind: Kind, payload: Mapping[str, Any], *, title: str, device: str = "cpu", run: str = ""
    ) -> int:
        """Put work at the end of the queue; gives its number."""
        values = (kind, title, json.dumps(payload), device, run, time.time())
        with self.writing() as db:
            position = db.execute("select coalesce(max(position), 0) + 1 from jobs").fetchone()[0]
            row = db.execute(
                "insert into jobs (kind, title, payload, device, run, made, position) values (?,?,?,?,?,?,?)",
                (*values, position),
            )
            number = int(row.lastrowid or 0)
        self._keep(number)
        return number

    def _keep(self, job: int) -> None:
        """Keep a copy of a job outside of the database."""
        with self._open() as db:
            row = db.execute("select * from jobs where id = ?", (job,)).fetchone()
        if row is not None:
            mirror.write(self.root / str(job), dict(row))

    def get(self, job: int) -> Job:
        """One job.

        Raises:
            StudioError: There is none with this number.
        """
        with self._open() as db:
            row = db.execute("select * from jobs where id = ?", (job,)).fetchone()
        if row is None:
            raise StudioError(f"There is no job {job}; it may have been removed.", field="job")
        return job_of(row)

    def all(self, *, states: tuple[State, ...] = (), limit: int = 200) -> list[Job]:
        """Jobs, the newest first; of some states only, if they are named; all with a limit below 0."""
        marks = ",".join("?" * len(states))
        where = f"where state in ({marks})" if states else ""
        with self._open() as db:
            rows = db.execute(f"select * from jobs {where} order by id desc limit ?", (*states, limit))
            return [job_of(row) for row in rows]

    def queue(self) -> list[Job]:
        """What waits, in the order in which it will start."""
        waiting = self.all(states=("queued",), limit=-1)
        return sorted(waiting, key=lambda job: (job.kind in LONG, job.position))

    def running(self, run: str | Path = "") -> list[Job]:
        """What runs now; of one run folder only, if it is named."""
        jobs = self.all(states=("running",), limit=-1)
        wanted = Path(run).resolve() if run else None
        return [job for job in jobs if wanted is None or (job.run and Path(job.run).resolve() == wanted)]

    def move(self, job: int, *, up: bool) -> None:
        """Let a waiting job change places with its neighbor in the queue."""
        waiting = self.queue()
        places = [each.id for each in waiting]
        if job not in places:
            raise StudioError(f"Job {job} does not wait any more; only waiting jobs can be moved.")
        other = places.index(job) + (-1 if up else 1)
        if not 0 <= other < len(places):
            return
        mine, theirs = waiting[places.index(job)], waiting[other]
        with self.writing() as db:
            for one, position in ((mine, theirs.position), (theirs, mine.position)):
                db.execute("update jobs set position = ? where id = ?", (position, one.id))

    def stop(self, job: int) -> None:
        """Cancel what waits; ask what runs to stop after its present step, saved."""
        with self.writing() as db:
            db.execute("update jobs set wanted = 'stop' where id = ? and state = 'running'", (job,))
            db.execute(
                "update jobs set state = 'canceled', ended = ? where id = ? and state = 'queued'",
                (time.time(), job),
            )
        self._keep(job)

    def set(self, job: int, **values: Any) -> None:
        """Change columns of a job."""
        if "result" in values:
            values["result"] = json.dumps(values["result"])
        names = ", ".join(f"{name} = ?" for name in values)
        with self.writing() as db:
            db.execute(f"update jobs set {names} where id = ?", (*values.values(), job))

    def finish(self, job: int, state: State, **values: Any) -> None:
        """End a job; questions that it did not answer fail with it."""
        self.set(job, state=state, ended=time.time(), **values)
        message = "The job ended before it could answer; ask the finished run on the Sample page."
        with self.writing() as db:
            db.execute(
                "update asks set state = 'failed', ended = ?, error = ? where job = ? and state = 'queued'",
                (time.time(), message, job),
            )
        self._keep(job)

    def claim(self, device: str, process: Process, *, kinds: tuple[Kind, ...] = KINDS) -> Job | None:
        """Take the next waiting job of a device, if it is of these kinds; nobody else gets it."""
        marks = ",".join("?" * len(LONG))
        with self.writing() as db:
            row = db.execute(
                f"select * from jobs where state = 'queued' and device = ? order by kind in ({marks}), position limit 1",
                (device, *LONG),
            ).fetchone()
            if row is None or row["kind"] not in kinds:
                return None
            now = time.time()
            db.execute(
                "update jobs set state = 'running', pid = ?, started = ?, begun = ?, heartbeat = ? where id = ?",
                (process.pid, process.started, now, now, row["id"]),
            )
        self._keep(row["id"])
        return self.get(row["id"])

    def beat(self, job: int) -> bool:
        """Say that a job lives; gives whether it shall stop."""
        with self.writing() as db:
            db.execute("update jobs set heartbeat = ? where id = ?", (time.time(), job))
            row = db.execute("select wanted from jobs where id = ?", (job,)).fetchone()
        return row is None or row["wanted"] == "stop"

    def ask(self, job: int, payload: Mapping[str, Any]) -> int:
        """Ask a running job something; gives the question's number."""
        if self.get(job).state != "running":
            raise StudioError(f"Job {job} does not run any more; draw from the run's files instead.")
        with self.writing() as db:
            row = db.execute(
                "insert into asks (job, payload, made) values (?,?,?)",
                (job, json.dumps(payload), time.time()),
            )
            return int(row.lastrowid or 0)

    def asked(self, job: int) -> Ask | None:
        """The oldest open question to a job."""
        with self._open() as db:
            row = db.execute(
                "select * from asks where job = ? and state = 'queued' order by id limit 1", (job,)
            ).fetchone()
        return ask_of(row) if row else None

    def get_ask(self, ask: int) -> Ask:
        """One question and, once it is there, its answer."""
        with self._open() as db:
            row = db.execute("select * from asks where id = ?", (ask,)).fetchone()
        if row is None:
            raise StudioError(f"There is no question {ask}; ask again.")
        return ask_of(row)

    def answer(self, ask: int, *, result: Mapping[str, Any] | None = None, error: str = "") -> None:
        """Close a question, with its result or with what went wrong."""
        values = ("failed" if error else "done", error, json.dumps(result or {}), time.time(), ask)
        with self.writing() as db:
            db.execute("update asks set state = ?, error = ?, result = ?, ended = ? where id = ?", values)
