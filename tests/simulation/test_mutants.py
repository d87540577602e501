"""The proof that the simulation bites: the ledger is broken in many ways, and every one of them is noticed.

`pytest tests/simulation/test_mutants.py -rP` lists which check noticed what, in which seed and after how many steps.
"""

import pytest

from tests.simulation.mutants import MUTANTS
from tests.simulation.mutation import Mutant, broken
from tests.simulation.run import Broken, run

SEEDS = 40
"""So many seeds must be enough for each; without a mutant all of them pass, see test_simulation.py."""


@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_a_broken_ledger_is_noticed(mutant: Mutant) -> None:
    """The auditor sees it within some seeds."""
    for seed in (mutant.first, *range(SEEDS)):
        try:
            with broken(mutant):
                run(seed, trace=0)
        except Broken as failure:
            print(f"{mutant.name}: noticed by {failure.check!r} in seed {seed} after {failure.step + 1} steps")
            return
    raise AssertionError(f"{mutant.name}: nobody notices in {SEEDS} seeds")


def test_a_whole_ledger_passes_again() -> None:
    """A mutant leaves nothing behind."""
    for seed in range(4):
        run(seed)


def test_mutants_are_different() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
    assert len({mutant.changes for mutant in MUTANTS}) == len(MUTANTS)
