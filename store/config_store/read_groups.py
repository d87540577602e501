"""Pages of teams and customers, and who belongs to them: what a list shows of ten thousand keys without reading them all."""

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from store.config_store import rows
from store.config_store.records import GroupRecord
from store.database import Connection
from store.like import contains, pattern

GroupKind = Literal["team", "customer"]
_TABLES: dict[GroupKind, tuple[str, str]] = {"team": ("teams", rows.TEAM), "customer": ("customers", rows.CUSTOMER)}
_ALL = 2**62
"""A LIMIT that limits nothing."""


@dataclass(frozen=True, slots=True)
class GroupQuery:
    """Which teams or customers, by name. `limit` None: all of them; `customer_id` is for teams."""

    limit: int | None = None
    offset: int = 0
    search: str = ""
    customer_id: str | None = None


@dataclass(frozen=True, slots=True)
class Member:
    """Somebody who belongs to a team or a customer."""

    id: str
    name: str


def group_page(connection: Connection, kind: GroupKind, query: GroupQuery) -> tuple[tuple[GroupRecord, ...], int]:
    """One page of teams or customers, and how many there are in all."""
    table, columns = _TABLES[kind]
    conditions: list[str] = []
    values: list[Any] = []
    if query.search:
        conditions.append(contains(connection.engine, "name"))
        values.append(pattern(query.search))
    if query.customer_id is not None and kind == "team":
        conditions.append("customer_id = ?")
        values.append(query.customer_id)
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    total = int(connection.execute(f"SELECT count(*) FROM {table}{where}", tuple(values))[0][0])
    found = connection.execute(
        f"SELECT {columns} FROM {table}{where} ORDER BY name, id LIMIT ? OFFSET ?",
        (*values, _ALL if query.limit is None else query.limit, query.offset),
    )
    return tuple(rows.group_record(row) for row in found), total


def groups_by_id(connection: Connection, kind: GroupKind, ids: Iterable[str]) -> dict[str, GroupRecord]:
    """The named teams or customers."""
    table, columns = _TABLES[kind]
    wanted = sorted({*ids})
    if not wanted:
        return {}
    found = connection.execute(f"SELECT {columns} FROM {table} WHERE id IN ({connection.listed})", (json.dumps(wanted),))
    return {row[0]: rows.group_record(row) for row in found}


def members(
    connection: Connection, table: Literal["virtual_keys", "teams"], kind: GroupKind, ids: Iterable[str]
) -> dict[str, tuple[Member, ...]]:
    """The virtual keys, or the teams, that belong to each of these teams or customers themselves, by name."""
    gathered: defaultdict[str, list[Member]] = defaultdict(list)
    for owner_id, member_id, name in connection.execute(
        f"SELECT {kind}_id, id, name FROM {table} WHERE {kind}_id IN ({connection.listed}) ORDER BY name, id",
        (json.dumps(sorted({*ids})),),
    ):
        gathered[owner_id].append(Member(member_id, name))
    return {owner_id: tuple(found) for owner_id, found in gathered.items()}
