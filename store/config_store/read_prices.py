"""Reads of pricing overrides: one by its id, and pages of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from store.config_store import rows
from store.config_store.records import PricingOverrideRecord
from store.database import Connection
from store.like import contains, pattern

_ALL = 2**62
"""A LIMIT that limits nothing."""


@dataclass(frozen=True, slots=True)
class OverrideQuery:
    """Which overrides, oldest first. `limit` None: all of them."""

    limit: int | None = None
    offset: int = 0
    search: str = ""
    """Part of the name or of the pattern, any case."""
    equal: Mapping[str, str] = field(default_factory=dict)
    """Column → the value it must have: scope_kind, virtual_key_id, provider_id, provider_key_id."""


def pricing_override(connection: Connection, override_id: str) -> PricingOverrideRecord | None:
    """One override."""
    found = connection.execute(f"SELECT {rows.PRICING_OVERRIDE} FROM pricing_overrides WHERE id = ?", (override_id,))
    return next((rows.pricing_override_record(row) for row in found), None)


def override_page(connection: Connection, query: OverrideQuery) -> tuple[tuple[PricingOverrideRecord, ...], int]:
    """A page of overrides, and how many there are in all."""
    terms, values = ["1 = 1"], list[Any]()
    for column in ("scope_kind", "virtual_key_id", "provider_id", "provider_key_id"):
        if (wanted := query.equal.get(column)) is not None:
            terms.append(f"{column} = ?")
            values.append(wanted)
    if query.search:
        terms.append(f"({contains(connection.engine, 'name')} OR {contains(connection.engine, 'pattern')})")
        values += [pattern(query.search)] * 2
    where = " AND ".join(terms)
    total = int(connection.execute(f"SELECT count(*) FROM pricing_overrides WHERE {where}", tuple(values))[0][0])
    found = connection.execute(
        f"SELECT {rows.PRICING_OVERRIDE} FROM pricing_overrides WHERE {where} ORDER BY created_ms, id LIMIT ? OFFSET ?",
        (*values, _ALL if query.limit is None else query.limit, query.offset),
    )
    return tuple(rows.pricing_override_record(row) for row in found), total
