"""Where a reset draws its line: calls posted before it are forgiven for good, on that cap."""

from collections.abc import Iterable

from store.database import Connection
from store.ledger.rows import to_json


def reset_lines(connection: Connection, cap_ids: Iterable[str]) -> dict[str, int]:
    """The sequence of the last post before each cap's last reset; caps that were never reset are left out.

    A correction of a call that was posted at or before the line changes nothing on that cap: the reset has taken away what was
    posted for it, so taking away more would forgive money that was spent since.
    """
    rows = connection.execute(
        f"""SELECT cap_id, max(posts_sequence) FROM entries
        WHERE kind = 'reset' AND cap_id IN ({connection.listed}) GROUP BY cap_id""",
        (to_json(list(cap_ids)),),
    )
    return {row[0]: row[1] for row in rows}
