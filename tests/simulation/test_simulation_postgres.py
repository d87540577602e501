"""The same histories on PostgreSQL, against the same auditor; `TOLLGATE_SEEDS_POSTGRES=500` runs so many."""

import os

import pytest

from store.clock import Clock
from store.database import Database
from store.postgres import PostgresAddress, PostgresDatabase
from tests.simulation.run import run

SEEDS = int(os.environ.get("TOLLGATE_SEEDS_POSTGRES", "6"))
ONE = os.environ.get("TOLLGATE_SEED")
TRACE = 100_000 if os.environ.get("TOLLGATE_TRACE") else 30


@pytest.mark.parametrize("seed", [int(ONE)] if ONE else range(SEEDS))
def test_the_ledger_answers_as_the_auditor_does_on_postgres(seed: int, postgres_address: PostgresAddress) -> None:
    """Every answer, every row and every sum is the model's; who is dead is told by heartbeats here."""

    def open_database(clock: Clock) -> Database:
        # What is synced makes no difference inside one machine's run.
        return PostgresDatabase.open(postgres_address, purpose="config", clock=clock, synchronous="NORMAL", allow_unsynced=True)

    run(seed, open_database, trace=TRACE)
