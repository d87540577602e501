"""How full caps are, as rules see it: hard caps of one unit, the fullest of them, and not known is not empty."""

import asyncio
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from addons.fullness import Fullness
from store.errors import StoreUnavailable
from store.ledger.levels import Level
from store.ledger.types import Enforcement, Unit
from tests.support.calls import cap


def fullness(**levels: Level) -> Fullness:
    made: Any = SimpleNamespace(current=levels)
    return Fullness(made)


def test_the_fullest_hard_cap_of_the_unit_counts() -> None:
    caps = (cap("a"), cap("b"), cap("t", Unit.TOKENS), cap("soft", enforcement=Enforcement.SOFT))
    made = fullness(a=Level(30, 100, None), b=Level(81, 100, None), t=Level(1, 3, None), soft=Level(99, 100, None))
    assert made.percent(caps, Unit.USD) == 81.0
    assert made.percent(caps, Unit.TOKENS) == pytest.approx(33.333, abs=0.001)
    assert made.percent(caps, Unit.REQUESTS) == 0.0


def test_a_cap_that_is_not_known_yet_makes_it_unknown() -> None:
    assert fullness(a=Level(0, 100, None)).percent((cap("a"), cap("new")), Unit.USD) is None
    assert Fullness().percent((cap("a"),), Unit.USD) is None
    assert Fullness().percent((), Unit.USD) == 0.0


@pytest.mark.parametrize(("level", "percent"), [((0, 100), 0), ((250, 100), 100), ((-5, 100), 0), ((0, 0), 100), ((1, 8), 12.5)])
def test_percent_is_between_nothing_and_full(level: tuple[int, int], percent: float) -> None:
    assert Level(*level, None).percent == percent


class Reads:
    """Levels that count their reads, and can fail."""

    def __init__(self) -> None:
        self.current: dict[str, Level] = {}
        self.reads = self.forgotten = 0
        self.fails = False
        self.read_twice = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def read(self) -> None:
        self.reads += 1
        if self.reads >= 3:
            self._loop.call_soon_threadsafe(self.read_twice.set)
        if self.fails:
            raise StoreUnavailable("locked")
        self.current = {"a": Level(self.reads, 100, None)}

    def forget(self) -> None:
        self.forgotten += 1
        self.current = {}


async def test_it_reads_before_anything_is_asked_and_goes_on_after_a_fault() -> None:
    levels: Any = Reads()
    made = Fullness(levels, lambda: True, every_seconds=0.001)
    await made.start()
    assert made.percent((cap("a"),), Unit.USD) == 1.0
    levels.fails = True
    await asyncio.wait_for(levels.read_twice.wait(), 5)
    known = made.percent((cap("a"),), Unit.USD)
    assert known is not None and known >= 1.0, "what was read last"
    await made.close()
    await made.close()


async def test_nothing_is_read_while_no_rule_asks() -> None:
    levels: Any = Reads()
    made = Fullness(levels, lambda: False, every_seconds=0.001)
    await made.start()
    assert (levels.reads, levels.forgotten) == (0, 1)
    assert made.percent((replace(cap("a")),), Unit.USD) is None
    await made.close()
