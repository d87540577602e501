"""The caps of many owners are found without a search for each of them, also in a table that the server has not counted yet."""

from dataclasses import replace
from typing import Any

from store.config_store import read
from store.config_store.records import ProviderConfigRecord, VirtualKeyRecord
from store.config_store.store import ConfigStore
from store.ledger.rows import CAP_COLUMNS, cap_to_row
from store.ledger.types import Cap, Scope, Unit

MANY = 4000


class Watched:
    """A connection that keeps its last statement."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self.last: tuple[str, tuple[Any, ...]] = ("", ())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def execute(self, sql: str, values: Any = ()) -> Any:
        self.last = sql, tuple(values)
        return self._connection.execute(sql, values)


def key(number: int) -> VirtualKeyRecord:
    config = ProviderConfigRecord(f"config-{number}", f"key-{number}", "openai", None, ("*",), (), ("*",), False)
    values = (f"key-{number}", f"key {number}", None, "", "", "", True, None, None, None, False, 0, 0)
    return VirtualKeyRecord(*values, provider_configs=(config,))


def test_caps_of_a_page_of_keys_are_not_searched_through_all_caps(store: ConfigStore) -> None:
    some = Cap("", "day", Scope.VIRTUAL_KEY, "", "", Unit.USD, 10**9, "1d")
    made = [
        replace(some, id=f"cap-{scope.value}-{number}", scope=scope, scope_id=f"{word}-{number}", deleted=not number % 50)
        for number in range(MANY)
        for scope, word in ((Scope.VIRTUAL_KEY, "key"), (Scope.PROVIDER_CONFIG, "config"))
    ]
    columns = len(CAP_COLUMNS.split(", "))
    with store.changing() as connection:
        connection.executemany(
            f"INSERT INTO caps ({CAP_COLUMNS}) VALUES ({', '.join('?' * columns)})", [cap_to_row(cap, 0) for cap in made]
        )
    with store.ledger.read() as connection:
        watched: Any = Watched(connection)
        found = read.key_cap_ids(watched, [key(number) for number in range(100, 201)], {})
        expected = {cap.id for cap in made if not cap.deleted and 100 <= int(cap.scope_id.partition("-")[2]) <= 200}
        assert set(found) == expected and len(found) == len(expected) == 2 * 98
        sql, values = watched.last
        explain = "EXPLAIN " if connection.engine == "postgres" else "EXPLAIN QUERY PLAN "
        plan = "\n".join(str(row) for row in connection.execute(explain + sql, values))
    # By the whole key of the index, or through all caps once; never through them for each owner.
    if store.ledger.engine == "postgres":
        hashed = "Hash Cond: (" in plan and "c.scope_id)" in plan or "Hash Cond: ((c.scope = " in plan
        assert hashed or "(scope_id = " in plan, plan
    else:
        assert "caps_by_scope (scope=? AND scope_id=?)" in plan, plan
