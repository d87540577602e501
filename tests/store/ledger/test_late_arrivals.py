"""What arrives while a batch is being opened on PostgreSQL is not lost with the batch's session."""

import random
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from store.clock import Ids, SystemClock
from store.database import Connection, governance_revision
from store.errors import StoreUnavailable
from store.ledger import writer as writer_module
from store.ledger.caps import put_cap
from store.ledger.line import Line
from store.ledger.operations import HoldOperation, SettleOperation
from store.ledger.types import Cap, Granted, HoldRequest, Scope, Settled, Settlement, Unit
from store.ledger.writer import Writer
from tests.store.ledger.desk import LOOP
from tests.support.postgres import Databases, opened


def held(call_id: str, revision: int) -> HoldOperation:
    return HoldOperation(HoldRequest(call_id, ("cap-1",), 100, 100, revision=revision), LOOP, 0.0)


def test_a_session_that_is_lost_while_late_arrivals_are_sorted_loses_none_of_them(
    postgres_databases: Databases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SystemClock()
    database = opened(postgres_databases.fresh())
    live = {"call-1", "call-2", "call-3"}
    writer = Writer(
        database,
        clock=clock,
        ids=Ids(clock, random.Random(1).randbytes),
        hold_wait_seconds=10.0,
        lease_dir=tmp_path / "leases",
        spool_dir=tmp_path / "spool",
        line=Line(10, 10_000),
        live=live,
    )
    try:
        writer.open()
        with database.write() as connection:
            put_cap(connection, Cap("cap-1", "cap-1", Scope.VIRTUAL_KEY, "vk", "vk", Unit.USD, 10_000, "1h"))
            revision = governance_revision(connection)
        first, second = held("call-1", revision), held("call-2", revision)
        writer.cycle([first])
        writer.cycle([second])
        assert isinstance(first.future.value, Granted) and isinstance(second.future.value, Granted)

        real = writer_module.touched_caps
        late = [
            SettleOperation(Settlement(call, 70, 7, sent=True), loop=LOOP, future=LOOP.create_future())
            for call in ("call-1", "call-2")
        ]
        early = held("call-3", revision)
        looks: list[list[Any]] = []

        def lost_at_the_second_look(connection: Connection, operations: Iterable[Any], own: Mapping[str, Any]) -> set[str]:
            looks.append(list(operations))
            if len(looks) == 1:
                # The batch knows what it locks for; these come while it waits for the locks.
                for operation in late:
                    writer.submit(operation)
            elif len(looks) == 2:
                raise StoreUnavailable("the connection is lost")
            return real(connection, looks[-1], own)

        monkeypatch.setattr(writer_module, "touched_caps", lost_at_the_second_look)
        writer.cycle([early])
        assert isinstance(early.future.value, StoreUnavailable)
        assert [operation.future.value.spooled for operation in late] == [True, True], "safe in the spool, not gone"
        monkeypatch.setattr(writer_module, "touched_caps", real)
        writer.cycle([SettleOperation(operation.settlement, spooled=True) for operation in late])
        with database.read() as connection:
            rows = connection.execute("SELECT call_id, kind, cost_nanos FROM posts ORDER BY call_id")
        assert rows == [("call-1", "post", 70), ("call-2", "post", 70)]
        assert isinstance(late[0].future.value, Settled)
    finally:
        database.close()
