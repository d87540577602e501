"""The values that calls can be filtered by: from the sums over all days where they know a column, else from the newest calls."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import orjson

from store.database import Database
from store.logs.filters import app_of

SAMPLE_CALLS = 10_000
"""So many of the newest calls are looked at for columns that no sums are kept by."""
MAX_VALUES = 1_000
"""No list is longer; the values are then those with the most calls."""

_SUMMED = ("virtual_key_id", "team_id", "customer_id", "provider", "model")
_SAMPLED = ("status", "stop_reason", "refusal_type", "operation", "client", "provider_key_id", "routing_rule_id", "run_id")


@dataclass(frozen=True, slots=True)
class Facets:
    """Values by column, sorted; empty ones are left out. `apps` are made of the clients."""

    values: Mapping[str, tuple[str, ...]]
    apps: tuple[str, ...]


def facets(database: Database, columns: Sequence[str] = (*_SUMMED, *_SAMPLED)) -> Facets:
    """The values of these columns. Raises StoreUnavailable."""
    found: dict[str, tuple[str, ...]] = {}
    summed = [name for name in _SUMMED if name in columns]
    sampled = [name for name in _SAMPLED if name in columns]
    with database.read() as connection:
        for name in summed:
            rows = connection.execute(
                f"SELECT {name} FROM total_sums WHERE {name} <> '' GROUP BY {name} "
                f"HAVING sum(calls) + sum(refused) > 0 ORDER BY sum(calls) + sum(refused) DESC, {name} LIMIT ?",
                (MAX_VALUES,),
            )
            found[name] = _sorted(row[0] for row in rows)
    if sampled:
        names = ", ".join(sampled)
        with database.read() as connection:
            rows = connection.execute(
                f"SELECT {names} FROM (SELECT {names} FROM calls ORDER BY at_ms DESC, number DESC LIMIT ?) AS newest "
                f"GROUP BY {names}",
                (SAMPLE_CALLS,),
            )
        for index, name in enumerate(sampled):
            found[name] = _sorted({row[index] for row in rows if row[index]})
    return Facets(found, _sorted({app_of(client) for client in found.get("client", ())} - {""}))


def key_names(database: Database, key_ids: Iterable[str]) -> dict[str, str]:
    """What virtual keys were called in their newest calls; those without calls are left out. Raises StoreUnavailable."""
    with database.read() as connection:
        rows = connection.execute(
            f"""SELECT k.c0, (SELECT virtual_key_name FROM calls AS c WHERE c.virtual_key_id = k.c0
                ORDER BY c.at_ms DESC LIMIT 1) FROM {connection.rowset("text")} AS k""",
            (orjson.dumps([(key_id,) for key_id in key_ids]).decode(),),
        )
    return {row[0]: row[1] for row in rows if row[1]}


def _sorted(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(values)[:MAX_VALUES])
