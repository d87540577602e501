"""Two nodes on one PostgreSQL, worked by hand: outages, clocks that are set, commits whose answers are lost."""

import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest

from store import postgres
from store.clock import Ids
from store.database import governance_revision
from store.errors import StoreUnavailable
from store.ledger.batch import Batch
from store.ledger.caps import cap_states, put_cap
from store.ledger.epochs import STALE_SECONDS, running_epochs
from store.ledger.line import Line
from store.ledger.operations import CancelOperation, HoldOperation, SettleOperation
from store.ledger.types import Cap, Granted, HoldRequest, Scope, Settlement, Unit
from store.ledger.verify import verify
from store.ledger.writer import Writer
from store.postgres import PostgresAddress, PostgresDatabase
from store.postgres_session import PostgresConnection
from tests.store.ledger.desk import LOOP, Box, HandClock
from tests.support.postgres import opened
from tests.support.recycled import Recycled


class Node:
    """One process, without a thread. Its own clock and the server's are one, unless the test sets `set_ms`."""

    def __init__(self, address: PostgresAddress, directory: Path, clock: HandClock, seed: int) -> None:
        self.clock = clock
        self.database: PostgresDatabase = opened(address, clock=clock)
        self.live: set[str] = set()
        self.writer = Writer(
            self.database,
            clock=clock,
            ids=Ids(clock, random.Random(seed).randbytes),
            hold_wait_seconds=10.0,
            lease_dir=directory / "leases",
            spool_dir=directory / f"spool-{seed}",
            line=Line(100, 2**30),
            live=self.live,
        )
        self.writer.open()

    def ask(self, call_id: str, caps: str, amount: int) -> HoldOperation:
        with self.database.read() as connection:
            revision = governance_revision(connection)
        self.live.add(call_id)
        request = HoldRequest(call_id, tuple(caps.split()), amount, amount, trim=False, revision=revision)
        return HoldOperation(request, LOOP, self.clock.monotonic())

    def hold(self, call_id: str, caps: str, amount: int) -> Any:
        operation = self.ask(call_id, caps, amount)
        self.writer.cycle([operation])
        return operation.future.value  # type: ignore[attr-defined]

    def settle(self, call_id: str, cost: int) -> Any:
        box: Any = Box()
        self.writer.cycle([SettleOperation(Settlement(call_id, cost, 0, sent=True), loop=LOOP, future=box)])
        return box.value

    def sums(self, cap_id: str) -> tuple[int, int]:
        with self.database.read() as connection:
            state = cap_states(connection, self.clock.now_ms(), [cap_id])[0]
        return state.used, state.held

    def differences(self) -> list[str]:
        return [str(difference) for difference in verify(self.database, self.clock).differences]


@pytest.fixture
def address(recycled: Recycled) -> Iterator[PostgresAddress]:
    with recycled.lent() as address:
        yield address


@pytest.fixture
def node(address: PostgresAddress, tmp_path: Path) -> Iterator[Callable[..., Node]]:
    made: list[Node] = []
    clock = HandClock()

    def make() -> Node:
        made.append(Node(address, tmp_path, clock, len(made)))
        if len(made) == 1:
            with made[0].database.write() as connection:
                for cap_id in ("a", "b"):
                    put_cap(connection, Cap(cap_id, cap_id, Scope.TEAM, "t", "t", Unit.USD, 1000, None))
        return made[-1]

    yield make
    assert made[0].differences() == []
    for each in made:
        each.database.close()


def pass_seconds(nodes: list[Node], seconds: float) -> None:
    """Time passes; everybody does what is due, once a second."""
    for _ in range(round(seconds)):
        nodes[0].clock.pass_ms(1000)
        for each in nodes:
            each.writer._maintain()


@pytest.mark.parametrize("outage_seconds", range(16, 26))
def test_after_an_outage_the_living_are_not_taken_for_dead(node: Callable[..., Node], outage_seconds: int) -> None:
    """Whoever is first in touch again finds all heartbeats stale, its own as well."""
    first, second = node(), node()
    pass_seconds([first, second], STALE_SECONDS + 10)
    assert isinstance(second.hold("c1", "a", 300), Granted)
    for each in (first, second):
        each.database.read_only = True  # nothing can be written
    pass_seconds([first, second], outage_seconds)
    for each in (first, second):
        each.database.read_only = False
    pass_seconds([first, second], 3)
    assert first.sums("a") == (0, 300), "the call is in flight"
    assert second.settle("c1", 20).adjusted is False
    assert first.sums("a") == (20, 0)


@pytest.mark.parametrize("step_seconds", [60, 3600, -60, -3600])
@pytest.mark.parametrize("offset", range(6))
def test_a_server_whose_clock_is_set_kills_nobody(node: Callable[..., Node], step_seconds: int, offset: int) -> None:
    first, second = node(), node()
    pass_seconds([first, second], STALE_SECONDS + 10 + offset)
    assert isinstance(second.hold("c1", "a", 300), Granted)
    first.clock.at_ms += step_seconds * 1000
    pass_seconds([first, second], 3)
    assert first.sums("a") == (0, 300), "the call is in flight"


@pytest.mark.parametrize("step_seconds", [0, 3600, -3600])
def test_a_dead_node_is_noticed_whatever_the_servers_clock_says(node: Callable[..., Node], step_seconds: int) -> None:
    first, second = node(), node()
    pass_seconds([first, second], STALE_SECONDS + 10)
    assert isinstance(second.hold("c1", "a", 300), Granted)
    first.clock.at_ms += step_seconds * 1000
    pass_seconds([first], 2 * STALE_SECONDS + 10)
    assert first.sums("a") == (300, 0)
    with first.database.read() as connection:
        assert [epoch.id for epoch in running_epochs(connection)] == [first.writer.epoch]


def test_a_commit_that_ends_after_its_answer_was_given_up(node: Callable[..., Node], monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk stands still: reads go on, and the commit is through only when everybody has stopped waiting for it."""
    monkeypatch.setitem(postgres._OTHER_OPTIONS, "lock_timeout", "300ms")
    only = node()
    session = lost_commit(only, only.ask("c1", "a", 300), monkeypatch)
    only.live.discard("c1")
    only.writer.cycle([CancelOperation("c1")])
    with suppress(StoreUnavailable):
        only.writer.compare_with_live()  # while the commit is on its way
    session.execute("COMMIT")
    for _ in range(2):
        only.writer.compare_with_live()
    assert only.sums("a") == (0, 0), "it never left"


def test_a_hold_that_comes_to_light_late_is_not_voided_without_its_locks(
    node: Callable[..., Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which caps a batch locks is known from holds read before the locks. What is seen later must not be touched by it."""
    first, second = node(), node()
    session = lost_commit(first, first.ask("c1", "a", 300), monkeypatch)
    open_batch, prepare = PostgresConnection.open_batch, Batch.prepare

    def late(self: PostgresConnection, *arguments: Any) -> Any:
        session.execute("COMMIT")
        return open_batch(self, *arguments)

    def prepared(self: Batch, *arguments: Any, **options: Any) -> None:
        monkeypatch.setattr(PostgresConnection, "open_batch", open_batch)
        monkeypatch.setattr(Batch, "prepare", prepare)
        prepare(self, *arguments, **options)
        assert isinstance(second.hold("c2", "a", 100), Granted)

    monkeypatch.setattr(PostgresConnection, "open_batch", late)
    monkeypatch.setattr(Batch, "prepare", prepared)
    first.writer.cycle([CancelOperation("c1")])
    assert first.sums("a") == (0, 100)


def test_a_call_that_never_left_is_given_back_although_its_process_was_taken_for_dead(node: Callable[..., Node]) -> None:
    first, second = node(), node()
    assert isinstance(first.hold("c1", "a", 300), Granted)
    pass_seconds([second], 2 * STALE_SECONDS + 10)
    assert second.sums("a") == (300, 0)
    first.live.discard("c1")
    first.writer.never_left("c1")
    for _ in range(2):
        first.writer.cycle([CancelOperation("c1")])
    assert first.sums("a") == (0, 0)


def lost_commit(node: Node, operation: HoldOperation, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A batch whose commit is on its way when its process has given up waiting; returns its session."""
    taken = []

    def stuck(self: Any) -> None:
        self.end_pipeline()
        del self.raw.wait
        taken.append(self.raw)
        self.peewee, self.raw = _GivenUp(), _GivenUp()
        raise StoreUnavailable("the server does not answer")

    with monkeypatch.context() as patch:
        patch.setattr(PostgresConnection, "commit", stuck)
        node.writer.cycle([operation])
    assert isinstance(operation.future.value, StoreUnavailable)  # type: ignore[attr-defined]
    return taken[0]


class _GivenUp:
    """What is left of a session that its process has closed."""

    closed = True

    @property
    def info(self) -> Any:
        raise psycopg.OperationalError("the connection is closed")

    def close(self) -> None:
        pass
