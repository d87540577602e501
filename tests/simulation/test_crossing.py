"""Batches of several processes at the same time, on both engines; and on PostgreSQL the proof that this would show a wrong lock."""

from pathlib import Path

import pytest

from store.database import Database
from store.postgres import PostgresAddress
from tests.conftest import OpenDatabase
from tests.simulation.crossing import cross
from tests.simulation.mutation import Change, Mutant, broken
from tests.support.postgres import opened

SESSION, WRITER = "store.postgres_session:PostgresConnection.open_batch", "store.ledger.writer:Writer._open"
ASK_ALONE = 'connection.execute(f"SELECT 1 FROM caps WHERE id IN ({connection.listed}) ORDER BY id FOR NO KEY UPDATE", (names,))'
MUTANTS = (
    Mutant("caps are not locked", (Change(SESSION, "if wanted:", "if False:"),)),
    Mutant(
        "caps are locked in an order of each session's own",
        (Change(SESSION, "_translated(_LOCK_CAPS)", "_translated(_LOCK_CAPS.replace('BY id', f'BY md5(id || {id(self)})'))"),),
    ),
    Mutant(
        "balances are read before the lock",
        (
            Change(WRITER, "connection.open_batch(locked, queries)", "connection.open_batch((), queries)"),
            Change(
                WRITER,
                "revision, alive =",
                f'names = __import__("orjson").dumps(sorted(locked)).decode(); {ASK_ALONE}; revision, alive =',
            ),
        ),
    ),
    Mutant("late arrivals need no locks", (Change(WRITER, "<= locked", "<= locked or True"),)),
)
MANY_CAPS = 4
"""With few caps each batch locks all of them, and nothing arrives too late."""


@pytest.mark.parametrize(("seed", "times"), [(1, 1), (2, MANY_CAPS)])
async def test_nothing_is_passed_lost_or_refused_falsely(seed: int, times: int, open_any: OpenDatabase, tmp_path: Path) -> None:
    """24 callers on three processes, caps in any order, edits all the while: every sum is right at the end, nobody is stuck."""
    assert await cross(open_any, tmp_path, seed, times=times) == []


@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
async def test_a_wrong_lock_is_noticed(mutant: Mutant, postgres_address: PostgresAddress, tmp_path: Path) -> None:
    """Without its locks, or with them in another order, the ledger on PostgreSQL does not get through."""
    made: list[Database] = []

    def open_it() -> Database:
        made.append(opened(postgres_address))
        return made[-1]

    try:
        with broken(mutant):
            times, calls = (MANY_CAPS, 600) if "late" in mutant.name else (1, 400)
            wrong = await cross(open_it, tmp_path, 1, times=times, calls=calls, hasty=True)
    finally:
        for database in made:
            database.close()
    print(f"{mutant.name}: {wrong[0] if wrong else 'nobody notices'}")

    assert wrong != []
