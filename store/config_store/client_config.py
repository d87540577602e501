"""The `client` settings that were changed while the gateway ran: kept in the store, they go before those of config.json."""

from collections.abc import Mapping
from typing import Any

from store.config_store.fields import loads_exact
from store.config_store.meta import get_meta
from store.database import Connection

CLIENT_CONFIG = "client_config"
"""The kind in the audit log, and the name under which they are kept."""
CLIENT_ID = "client"
LOGGED_FROM = "logged_from"


def stored_client(connection: Connection) -> dict[str, Any]:
    """The fields that were changed, with their values as JSON has them; empty in a store where nobody changed any."""
    found: dict[str, Any] = loads_exact(get_meta(connection, CLIENT_CONFIG) or "{}")
    return found


def logged_from(connection: Connection) -> int:
    """The ledger's sequence at which logging was last switched on again; calls up to there are not to be logged afterwards."""
    return int(get_meta(connection, LOGGED_FROM) or 0)


def client_document(connection: Connection) -> dict[str, Any]:
    """The document of the audit log and of entity tags."""
    return {"id": CLIENT_ID, **stored_client(connection)}


def ignored_fields(stored: Mapping[str, Any], in_file: set[str]) -> tuple[str, ...]:
    """Names of fields that the file gives and the store goes before."""
    return tuple(name for name in sorted(stored) if name in in_file)
