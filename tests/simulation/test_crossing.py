"""Batches of several processes at the same time, on both engines; and on PostgreSQL the proof that this would show a wrong lock."""

from contextlib import ExitStack
from pathlib import Path

import pytest

from store.database import Database
from store.postgres import PostgresAddress
from tests.conftest import OpenDatabase
from tests.simulation.crossing import cross
from tests.simulation.mutation import Change, Mutant, broken
from tests.support.postgres import opened
from tests.support.recycled import Recycled

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
async def test_a_wrong_lock_is_noticed(mutant: Mutant, recycled: Recycled, tmp_path: Path) -> None:
    """Without its locks, or with them in another order, the ledger on PostgreSQL does not get through. Chance has a few tries."""
    few = {"times": MANY_CAPS, "slots": 4, "calls": 600} if "late" in mutant.name else {}
    wrong: list[str] = []
    for seed in range(1, 6):
        with recycled.lent() as address, ExitStack() as stack:

            def open_it(address: PostgresAddress = address, stack: ExitStack = stack) -> Database:
                database = opened(address)
                stack.callback(database.close)
                return database

            with broken(mutant):
                wrong = await cross(open_it, tmp_path, seed, hasty=True, **few)
        if wrong:
            print(f"{mutant.name}: {wrong[0]}")
            break

    assert wrong != []
