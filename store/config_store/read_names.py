"""Names by id, for pages that show sums of many things."""

import json
from collections.abc import Iterable
from typing import Literal

from store.database import Connection

type Named = Literal["virtual_keys", "teams", "customers", "provider_keys", "routing_rules"]
_TABLES = ("virtual_keys", "teams", "customers", "provider_keys", "routing_rules")


def names_by_id(connection: Connection, table: Named, ids: Iterable[str]) -> dict[str, str]:
    """The names of these things as far as they still are there."""
    if table not in _TABLES:
        raise ValueError(f"{table!r} has no names")
    rows = connection.execute(f"SELECT id, name FROM {table} WHERE id IN ({connection.listed})", (json.dumps(sorted({*ids})),))
    return {row[0]: row[1] for row in rows}
