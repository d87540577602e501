"""Names for what the logs know by id: of today, or of the newest call of a key that is gone. Blocks."""

from collections.abc import Sequence

from addons.console.api.log_query import log_database
from addons.console.context import ConsoleContext
from store.config_store.read_names import Named, names_by_id
from store.logs.facets import key_names

_TABLES: dict[str, Named] = {
    "virtual_key": "virtual_keys",
    "team": "teams",
    "customer": "customers",
    "selected_key": "provider_keys",
    "routing_rule": "routing_rules",
}


def names_of(context: ConsoleContext, kind: str, ids: Sequence[str]) -> dict[str, str]:
    """Names by id of a kind of thing; what has no name, or none any more, is left out."""
    table = _TABLES.get(kind)
    if table is None:
        return {}
    with context.store.reading() as (connection, _):
        found = names_by_id(connection, table, ids)
    if kind == "virtual_key":
        gone = [one for one in ids if one and one not in found]
        found |= key_names(log_database(context), gone) if gone else {}
    return found
