"""Reads of model configs: one of them, those of some virtual keys, a filtered page. Short plain queries."""

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from store.config_store import rows
from store.config_store.records import ModelConfigRecord
from store.database import Connection
from store.like import contains, pattern

_ALL = 2**62
"""A LIMIT that limits nothing."""


@dataclass(frozen=True, slots=True)
class ModelConfigQuery:
    """Which model configs, in the order of their making. `limit` None: all of them."""

    limit: int | None = None
    offset: int = 0
    search: str = ""
    """Part of the model's name."""
    scope: str | None = None
    scope_id: str | None = None
    provider: str | None = None


def model_config(connection: Connection, config_id: str) -> ModelConfigRecord | None:
    """One model config."""
    return _first(connection.execute(f"SELECT {rows.MODEL_CONFIG} FROM model_configs WHERE id = ?", (config_id,)))


def model_config_at(
    connection: Connection, scope: str, scope_id: str | None, model_name: str, provider: str | None
) -> ModelConfigRecord | None:
    """The model config that binds exactly these calls; None for `scope_id` or `provider`: any."""
    return _first(
        connection.execute(
            f"SELECT {rows.MODEL_CONFIG} FROM model_configs WHERE scope = ? AND scope_id = ? AND model_name = ? AND provider = ?",
            (scope, scope_id or "", model_name, provider or ""),
        )
    )


def model_configs_of(connection: Connection, key_ids: Iterable[str]) -> dict[str, tuple[ModelConfigRecord, ...]]:
    """The model configs of these virtual keys, in the order of their making; keys without any are left out."""
    gathered: defaultdict[str, list[ModelConfigRecord]] = defaultdict(list)
    found = connection.execute(
        f"SELECT {rows.MODEL_CONFIG} FROM model_configs WHERE scope = ? AND scope_id IN ({connection.listed}) "
        "ORDER BY created_ms, id",
        ("virtual_key", json.dumps(list(key_ids))),
    )
    for row in found:
        record = rows.model_config_record(row)
        gathered[record.scope_id or ""].append(record)
    return {key_id: tuple(records) for key_id, records in gathered.items()}


def model_config_page(connection: Connection, query: ModelConfigQuery) -> tuple[tuple[ModelConfigRecord, ...], int]:
    """One page of model configs, and how many there are in all."""
    conditions: list[str] = []
    values: list[Any] = []
    if query.search:
        conditions.append(contains(connection.engine, "model_name"))
        values.append(pattern(query.search))
    for column, wanted in (("scope", query.scope), ("scope_id", query.scope_id), ("provider", query.provider)):
        if wanted is not None:
            conditions.append(f"{column} = ?")
            values.append(wanted)
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    total = int(connection.execute(f"SELECT count(*) FROM model_configs{where}", tuple(values))[0][0])
    found = connection.execute(
        f"SELECT {rows.MODEL_CONFIG} FROM model_configs{where} ORDER BY created_ms, id LIMIT ? OFFSET ?",
        (*values, _ALL if query.limit is None else query.limit, query.offset),
    )
    return tuple(rows.model_config_record(row) for row in found), total


def _first(found: Sequence[Sequence[Any]]) -> ModelConfigRecord | None:
    return rows.model_config_record(found[0]) if found else None
