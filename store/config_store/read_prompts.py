"""Reads of prompts: named texts in numbered versions, and what differs between two of them."""

import difflib
from dataclasses import dataclass

from store.database import Connection
from store.errors import NotFound, UserError
from store.like import contains, pattern

MOST_LINES = 5_000
"""Lines of a text that can still be compared: the time it takes grows with their square."""
_COLUMNS = "p.id, p.name, p.description, p.created_ms, p.updated_ms, v.version, v.text, v.note"
_NEWEST = (
    "FROM prompts AS p JOIN prompt_versions AS v ON v.prompt_id = p.id "
    "AND v.version = (SELECT max(n.version) FROM prompt_versions AS n WHERE n.prompt_id = p.id)"
)


@dataclass(frozen=True, slots=True)
class PromptRecord:
    """A prompt with its newest version. Times are epoch milliseconds."""

    id: str
    name: str
    description: str
    created_ms: int
    updated_ms: int
    version: int
    text: str
    note: str


@dataclass(frozen=True, slots=True)
class PromptVersionRecord:
    """One version."""

    prompt_id: str
    version: int
    text: str
    note: str
    created_ms: int


def find_prompt(connection: Connection, id_or_name: str) -> PromptRecord | None:
    """The prompt with this id, else the one with this name."""
    for column in ("id", "name"):
        rows = connection.execute(f"SELECT {_COLUMNS} {_NEWEST} WHERE p.{column} = ?", (id_or_name,))
        if rows:
            return PromptRecord(*rows[0])
    return None


def get_prompt(connection: Connection, id_or_name: str) -> PromptRecord:
    """As `find_prompt`. Raises NotFound."""
    record = find_prompt(connection, id_or_name)
    if record is None:
        raise NotFound(f"there is no prompt {id_or_name!r}")
    return record


def prompt_page(connection: Connection, search: str, limit: int | None, offset: int) -> tuple[list[PromptRecord], int]:
    """(prompts by name whose name or description holds a text, how many there are)."""
    found = f" WHERE ({contains(connection.engine, 'p.name')} OR {contains(connection.engine, 'p.description')})" if search else ""
    params = [pattern(search)] * 2 if search else []
    bound, bounds = (" LIMIT ? OFFSET ?", [limit, offset]) if limit is not None else ("", [])
    rows = connection.execute(f"SELECT {_COLUMNS} {_NEWEST}{found} ORDER BY p.name{bound}", (*params, *bounds))
    total = connection.execute(f"SELECT count(*) FROM prompts AS p{found}", params)[0][0]
    return [PromptRecord(*row) for row in rows], int(total)


def version_page(
    connection: Connection, prompt_id: str, limit: int | None = None, offset: int = 0
) -> tuple[list[PromptVersionRecord], int]:
    """(versions of a prompt, newest first; how many there are)."""
    bound, bounds = (" LIMIT ? OFFSET ?", [limit, offset]) if limit is not None else ("", [])
    rows = connection.execute(
        f"SELECT prompt_id, version, text, note, created_ms FROM prompt_versions WHERE prompt_id = ? ORDER BY version DESC{bound}",
        (prompt_id, *bounds),
    )
    total = connection.execute("SELECT count(*) FROM prompt_versions WHERE prompt_id = ?", (prompt_id,))[0][0]
    return [PromptVersionRecord(*row) for row in rows], int(total)


def get_version(connection: Connection, prompt: PromptRecord, version: int) -> PromptVersionRecord:
    """One version. Raises NotFound."""
    rows = connection.execute(
        "SELECT prompt_id, version, text, note, created_ms FROM prompt_versions WHERE prompt_id = ? AND version = ?",
        (prompt.id, version),
    )
    if not rows:
        raise NotFound(f"the prompt {prompt.name!r} has no version {version}; its newest is {prompt.version}")
    return PromptVersionRecord(*rows[0])


def difference(before: PromptVersionRecord, after: PromptVersionRecord) -> str:
    """A unified diff, empty for equal texts. Raises UserError for texts of too many lines."""
    old, new = before.text.splitlines(), after.text.splitlines()
    if max(len(old), len(new)) > MOST_LINES:
        raise UserError(f"compare_to: only texts of up to {MOST_LINES} lines can be compared")
    lines = difflib.unified_diff(old, new, f"version {before.version}", f"version {after.version}", lineterm="")
    return "\n".join(lines)


def all_versions(connection: Connection) -> dict[str, list[PromptVersionRecord]]:
    """Every version of every prompt by the prompt's id, the first one first."""
    rows = connection.execute("SELECT prompt_id, version, text, note, created_ms FROM prompt_versions ORDER BY prompt_id, version")
    gathered: dict[str, list[PromptVersionRecord]] = {}
    for row in rows:
        gathered.setdefault(row[0], []).append(PromptVersionRecord(*row))
    return gathered
