"""What only PostgreSQL makes possible: logs and ledger in one database, commits that do not wait for the disk, lost sessions."""

import threading
from collections.abc import Iterator

import pytest

from store.clock import SystemClock
from store.database import Connection
from store.errors import UserError
from store.logs.queries import LogReader
from store.logs.schema import MIGRATIONS
from store.logs.types import CallRow
from store.logs.writer import LogWriter
from store.migrations import Migration
from tests.store.logs.stores import Stores
from tests.support.recycled import Recycled

NOON_MS = 1_795_435_200_000


@pytest.fixture
def shared(recycled: Recycled) -> Iterator[Stores]:
    """One database for both."""
    with recycled.lent() as address:
        made = Stores(address)
        try:
            yield made
        finally:
            made.close()


def row(call_id: str) -> CallRow:
    return CallRow(call_id, NOON_MS, "success", 200, provider="openai", model="m", virtual_key_id="vk-1", cost_nanos=7)


def test_only_the_ledger_waits_for_the_disk(shared: Stores) -> None:
    asked = "SELECT current_setting('synchronous_commit')"
    with shared.logs().read() as logs, shared.ledger().read() as ledger:
        assert (logs.execute(asked), ledger.execute(asked)) == ([("off",)], [("on",)])
    with shared.logs().write() as logs:
        assert logs.execute(asked) == [("off",)]


def test_logs_that_are_being_written_hold_up_no_call(shared: Stores) -> None:
    logs, ledger = shared.logs(), shared.ledger()
    with logs.write() as writing:
        writing.execute("DELETE FROM calls")
        with ledger.write_batch() as batch:
            assert batch.execute("SELECT 1") == [(1,)]
        with ledger.write() as edit:
            assert edit.execute("SELECT 1") == [(1,)]


def test_each_schema_counts_its_own_steps(shared: Stores) -> None:
    logs, ledger = shared.logs(), shared.ledger()
    with logs.read() as connection:
        assert connection.execute("SELECT number, name FROM logs_schema_steps ORDER BY number") == [
            (step.number, step.name) for step in MIGRATIONS
        ]
        assert len(connection.execute("SELECT number FROM config_schema_steps")) > len(MIGRATIONS)
    assert (logs.migrate(), ledger.migrate()) == ((), ())

    def later(connection: Connection) -> None:
        connection.define("CREATE TABLE later (id INTEGER PRIMARY KEY)")

    shared.logs(migrations=(*MIGRATIONS, Migration(99, "later", later)))
    with pytest.raises(UserError, match=r"has schema step 99, this version knows steps up to 3: run the newer version"):
        shared.logs()
    assert shared.ledger().migrate() == (), "the ledger does not mind"


def test_rows_survive_the_loss_of_every_session(shared: Stores) -> None:
    """As when the server is restarted: what was being written is written again, and nothing twice."""
    logs, other = shared.logs(), shared.logs()
    writer = LogWriter(logs, clock=SystemClock(), batch_rows=20, batch_seconds=0.001)
    writer.start()
    done = threading.Event()
    ended = 0

    def end_sessions() -> None:
        nonlocal ended
        while not done.wait(0.02):
            with other.read() as connection:
                ended += len(
                    connection.execute(
                        """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                        WHERE datname = current_database() AND pid <> pg_backend_pid()"""
                    )
                )
            done.wait(0.4)

    thread = threading.Thread(target=end_sessions)
    thread.start()
    for number in range(600):
        writer.add(row(f"c-{number:03d}"))
    assert writer.flush(60)
    done.set()
    thread.join()
    writer.close()
    reader = LogReader(shared.logs())
    (day,) = reader.daily("2026-11-23", "2026-11-23")
    assert ended > 0 and (reader.count(), day.calls, day.cost_nanos) == (600, 600, 4200)
    assert (writer.stats.written, writer.stats.dropped, writer.stats.failed) == (600, 0, 0)
