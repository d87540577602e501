"""Reads logs.db from outside, while a gateway has it open."""

from pathlib import Path
from typing import Any

import apsw


def read_log_rows(path: Path) -> list[dict[str, Any]]:
    """The call rows, oldest first; none when there is no file or no table yet. The table is found by its columns."""
    if not path.exists():
        return []
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        connection.set_busy_timeout(5_000)
        for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            columns = [row[1] for row in connection.execute(f'PRAGMA table_info("{table}")')]
            if {"http_status", "cost_nanos", "count"} <= set(columns):
                rows = connection.execute(f'SELECT * FROM "{table}" ORDER BY id').fetchall()
                return [dict(zip(columns, row, strict=True)) for row in rows]
        return []
    finally:
        connection.close()
