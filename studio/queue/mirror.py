"""A copy of each job beside its files, from which the queue is made anew when its SQLite file is lost or damaged. No torch."""

import json
import logging
import sqlite3
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from studio.records.runs import write_text

log = logging.getLogger(__name__)
DATABASE = "jobs.sqlite"
FILE = "job.json"


def write(folder: Path, row: Mapping[str, Any]) -> None:
    """Keep a copy of a job in its folder; a full disk keeps no job from running."""
    try:
        folder.mkdir(exist_ok=True)
        write_text(folder / FILE, json.dumps(dict(row)))
    except OSError as error:
        log.warning("the copy of job %s cannot be written (%s)", row["id"], error)


def set_aside(root: Path) -> None:
    """Give a damaged database, with its journals, names under which nothing looks for it."""
    mark = time.strftime("damaged-%Y%m%d-%H%M%S")
    for path in sorted(root.glob(f"{DATABASE}*")):
        if ".damaged-" not in path.name:
            path.rename(path.with_name(f"{path.name}.{mark}"))


def restore(db: sqlite3.Connection, root: Path) -> int:
    """Put the jobs that have a copy and are not there into a database; gives their number."""
    columns = {row[1] for row in db.execute("pragma table_info(jobs)")}
    before = db.total_changes
    for path in sorted(root.glob(f"*/{FILE}")):
        try:
            row = json.loads(path.read_text(encoding="utf-8"))
            values = {name: row[name] for name in columns}
            places = ",".join("?" * len(values))
            db.execute(
                f"insert or ignore into jobs ({','.join(values)}) values ({places})", (*values.values(),)
            )
        except (OSError, ValueError, KeyError, TypeError, sqlite3.Error) as error:
            log.warning("%s cannot be read (%s)", path, error)
    return db.total_changes - before
