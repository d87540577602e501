"""The front door under concurrency and faults: threads, loops, callers that leave, stores that fail, files that fill up."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apsw
import pytest

from store.clock import Ids, SystemClock
from store.database import Connection, governance_revision
from store.errors import Conflict, NotFound, StoreUnavailable
from store.ledger.caps import put_cap
from store.ledger.ledger import Ledger
from store.ledger.types import CallerLeft, CallFacts, Cap, Granted, HoldRequest, Refused, Scope, Settled, Settlement, Unit
from store.ledger.verify import verify
from store.sqlite import SqliteDatabase

Make = Callable[..., Awaitable["Bench"]]


class Bench:
    """A started ledger on a fresh file."""

    def __init__(self, directory: Path, **options: Any) -> None:
        self.clock = SystemClock()
        self.directory = directory
        self.database = SqliteDatabase.open(directory / "config.db", foreign_wait_seconds=options.pop("foreign_wait_seconds", 5.0))
        self.database.migrate()
        self.ledger = Ledger(
            self.database,
            clock=self.clock,
            ids=Ids(self.clock),
            lease_dir=directory / "leases",
            spool_dir=directory / "spool",
            **options,
        )

    def cap(self, cap_id: str, limit: int, unit: Unit = Unit.USD, window: str | None = None) -> None:
        with self.database.write() as connection:
            put_cap(connection, Cap(cap_id, cap_id, Scope.TEAM, "t", "t", unit, limit, window))

    def request(self, call_id: str, caps: str = "a", bound: int = 100, **fields: Any) -> HoldRequest:
        with self.database.read() as connection:
            revision = governance_revision(connection)
        fields.setdefault("floor_nanos", bound)
        return HoldRequest(call_id, tuple(caps.split()), bound, revision=revision, **fields)

    def sums(self, cap_id: str = "a") -> tuple[int, int]:
        (state,) = self.ledger.states([cap_id])
        return state.used, state.held


@pytest.fixture
async def make(tmp_path: Path) -> AsyncIterator[Make]:
    made: list[Bench] = []

    async def maker(**options: Any) -> Bench:
        bench = Bench(tmp_path, **options)
        made.append(bench)
        await bench.ledger.start()
        return bench

    yield maker
    for bench in made:
        await bench.ledger.close()
        report = verify(bench.database, bench.clock)
        assert report.clean, [str(difference) for difference in report.differences]
        bench.database.close()


async def until(condition: Callable[[], object], seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        await asyncio.sleep(0.005)


async def test_hold_and_settle(make: Make) -> None:
    bench = await make()
    bench.cap("a", 1000)
    answer = await bench.ledger.hold(bench.request("c1"))
    assert isinstance(answer, Granted)
    assert bench.ledger.live == {"c1"}
    settled = await bench.ledger.settle(Settlement("c1", 40, 4, True))
    assert [(state.used, state.held) for state in settled.caps] == [(40, 0)]
    assert bench.ledger.live == set()
    assert (await bench.ledger.cap_states(["a"]))[0].used == 40


async def test_a_burst_on_one_cap_never_passes_it(make: Make) -> None:
    """300 parallel calls where 80 fit; each settles below its hold, so a few more get in; nobody is refused falsely."""
    bench = await make(hold_wait_seconds=5.0)
    limit = 8_000
    bench.cap("a", limit)
    in_flight = 0
    spent = 0
    worst = 0
    request = bench.request("x")

    async def call(number: int) -> str:
        nonlocal in_flight, spent, worst
        hold = HoldRequest(f"c{number}", ("a",), 100, 100, revision=request.revision)
        answer = await bench.ledger.hold(hold)
        if isinstance(answer, Refused):
            assert not answer.held_only
            assert answer.exceeded[0].state.used + 100 > limit, "refused only when it would not fit without the others"
            return "refused"
        assert isinstance(answer, Granted)
        in_flight += answer.amount_nanos
        worst = max(worst, spent + in_flight)
        await asyncio.sleep(0.001 * (number % 7))
        cost = 90 + number % 11
        spent += cost
        in_flight -= answer.amount_nanos
        await bench.ledger.settle(Settlement(f"c{number}", cost, 1, True))
        return "granted"

    outcomes = await asyncio.gather(*(call(number) for number in range(300)))
    assert worst <= limit
    assert limit - 100 < spent <= limit
    assert bench.sums() == (spent, 0)
    assert outcomes.count("granted") >= 80
    assert outcomes.count("granted") + outcomes.count("refused") == 300


async def test_two_ledgers_on_one_file_share_a_cap_exactly(make: Make) -> None:
    first, second = await make(hold_wait_seconds=3.0), await make(hold_wait_seconds=3.0)
    first.cap("a", 5_000)
    template = first.request("x")

    async def call(bench: Bench, name: str) -> int:
        answer = await bench.ledger.hold(HoldRequest(name, ("a",), 100, 100, revision=template.revision))
        if not isinstance(answer, Granted):
            return 0
        await asyncio.sleep(0.002)
        await bench.ledger.settle(Settlement(name, 97, 1, True))
        return 97

    costs = await asyncio.gather(
        *(call(bench, f"{side}{number}") for number in range(60) for side, bench in (("l", first), ("r", second)))
    )
    assert sum(costs) == 51 * 97, "51 calls of 97 leave 53, which is less than the bound of 100"
    assert first.sums() == second.sums() == (51 * 97, 0)


async def test_waiting_calls_see_what_another_process_gives_back(make: Make) -> None:
    first, second = await make(), await make()
    first.cap("a", 100)
    await first.ledger.hold(first.request("c1"))
    waiting = asyncio.create_task(second.ledger.hold(second.request("c2")))
    await until(lambda: second.ledger.waiting == 1)
    await first.ledger.settle(Settlement("c1", 0, 0, True))
    answer = await asyncio.wait_for(waiting, 2)
    assert isinstance(answer, Granted)
    await second.ledger.settle(Settlement("c2", 0, 0, True))


async def test_waiting_ends(make: Make) -> None:
    bench = await make(hold_wait_seconds=0.2)
    bench.cap("a", 100)
    await bench.ledger.hold(bench.request("c1"))
    started = time.monotonic()
    answer = await bench.ledger.hold(bench.request("c2"))
    assert isinstance(answer, Refused)
    assert answer.held_only
    assert 0.2 <= time.monotonic() - started < 2
    assert 200 <= answer.waited_ms < 2_000
    assert bench.ledger.live == {"c1"}
    await bench.ledger.settle(Settlement("c1", 0, 0, True))


async def test_a_caller_that_leaves_the_line_holds_nothing(make: Make) -> None:
    bench = await make()
    bench.cap("a", 100)
    await bench.ledger.hold(bench.request("c1"))
    waiting = asyncio.create_task(bench.ledger.hold(bench.request("c2")))
    await until(lambda: bench.ledger.waiting == 1)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await until(lambda: bench.ledger.waiting == 0)
    await bench.ledger.settle(Settlement("c1", 10, 0, True))
    assert bench.sums() == (10, 0)
    assert bench.ledger.live == set()


async def test_a_hold_that_is_cancelled_from_elsewhere_is_answered(make: Make) -> None:
    bench = await make()
    bench.cap("a", 100)
    await bench.ledger.hold(bench.request("c1"))
    waiting = asyncio.create_task(bench.ledger.hold(bench.request("c2")))
    await until(lambda: bench.ledger.waiting == 1)
    bench.ledger.cancel("c2")
    with pytest.raises(CallerLeft):
        await asyncio.wait_for(waiting, 5)
    assert bench.ledger.live == {"c1"}
    await bench.ledger.settle(Settlement("c1", 0, 0, True))
    assert await bench.ledger.drain(5)


async def test_callers_that_leave_at_any_moment_hold_nothing(make: Make) -> None:
    bench = await make()
    bench.cap("a", 10**6)
    template = bench.request("x")

    async def impatient(number: int) -> None:
        task = asyncio.create_task(bench.ledger.hold(HoldRequest(f"c{number}", ("a",), 100, 100, revision=template.revision)))
        for _ in range(number % 5):
            await asyncio.sleep(0)
        if number % 3 == 0:
            await asyncio.sleep(0.0004 * (number % 8))
        if not task.done():
            task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            return
        await bench.ledger.settle(Settlement(f"c{number}", 0, 0, False))

    await asyncio.gather(*(impatient(number) for number in range(120)))
    assert await bench.ledger.drain(5)
    assert bench.sums() == (0, 0)
    assert bench.ledger.live == set()


async def test_settle_soon_tells_its_end_on_the_loop(make: Make) -> None:
    bench = await make()
    bench.cap("a", 1000)
    await bench.ledger.hold(bench.request("c1"))
    loop = asyncio.get_running_loop()
    told: asyncio.Future[Settled] = loop.create_future()

    def done(settled: Settled) -> None:
        assert asyncio.get_running_loop() is loop
        told.set_result(settled)

    await asyncio.to_thread(bench.ledger.settle_soon, Settlement("c1", 40, 4, True), done)
    assert (await asyncio.wait_for(told, 5)).caps[0].used == 40


async def test_settle_soon_never_raises(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    bench = await make()
    bench.ledger.settle_soon(Settlement("nobody", 40, 4, True))
    bench.ledger.settle_soon(Settlement("negative", -40, 4, True))
    assert await bench.ledger.drain(5)
    assert "no hold is known for the call 'nobody'" in caplog.text
    assert "negative" in caplog.text


async def test_a_callback_that_fails_hurts_nobody(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    bench = await make()
    bench.cap("a", 1000)
    await bench.ledger.hold(bench.request("c1"))

    def broken(settled: Settled) -> None:
        raise KeyError("broken")

    bench.ledger.settle_soon(Settlement("c1", 40, 4, True), broken)
    assert await bench.ledger.drain(5)
    assert "broken" in caplog.text
    assert bench.sums() == (40, 0)


@pytest.mark.parametrize(
    "field", ["bound_nanos", "floor_nanos", "strict_bound_nanos", "strict_floor_nanos", "tokens", "waiting_bytes"]
)
@pytest.mark.parametrize("amount", [-1, 2**63])
async def test_bad_amounts_are_refused_at_the_door(make: Make, field: str, amount: int) -> None:
    bench = await make()
    fields = {"bound_nanos": 1, "floor_nanos": 1, field: amount}
    with pytest.raises(ValueError, match="negative or more"):
        await bench.ledger.hold(HoldRequest("c1", (), **fields))
    assert bench.ledger.live == set()


async def test_errors_reach_their_callers(make: Make) -> None:
    bench = await make()
    bench.cap("a", 1000)
    with pytest.raises(NotFound):
        await bench.ledger.hold(bench.request("c1", "nowhere"))
    with pytest.raises(NotFound):
        await bench.ledger.settle(Settlement("c1", 1, 1, True))
    with pytest.raises(ValueError):
        await bench.ledger.settle(Settlement("c1", -1, 1, True))
    await bench.ledger.hold(bench.request("c2"))
    await bench.ledger.settle(Settlement("c2", 1, 1, True))
    with pytest.raises(Conflict):
        await bench.ledger.hold(bench.request("c2"))
    assert bench.ledger.live == set()


async def test_one_bad_call_never_hurts_its_neighbours(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    bench = await make()
    bench.cap("a", 10_000)
    bad = bench.request("bad", facts=CallFacts(model="\ud800 is half a character"))
    requests = [bench.request(f"c{number}") for number in range(10)]
    requests.insert(5, bad)
    answers = await asyncio.gather(*(bench.ledger.hold(request) for request in requests), return_exceptions=True)
    kinds = [type(answer) for answer in answers]
    assert kinds[:5] + kinds[6:] == [Granted] * 10
    assert isinstance(answers[5], Exception)
    assert bench.sums() == (0, 1000)
    for number in range(10):
        await bench.ledger.settle(Settlement(f"c{number}", 1, 1, True))
    assert bench.sums() == (10, 0)


# ---- a store that cannot be written


class Shell:
    """Another program that keeps the database locked, ignoring the file lock."""

    def __init__(self, path: Path) -> None:
        self._connection = apsw.Connection(str(path))
        self._connection.execute("BEGIN IMMEDIATE")

    def let_go(self) -> None:
        self._connection.execute("ROLLBACK")
        self._connection.close()


async def test_a_store_that_cannot_be_written_refuses_holds_and_keeps_settlements(make: Make, tmp_path: Path) -> None:
    bench = await make(foreign_wait_seconds=0.05)
    bench.cap("a", 1000)
    await bench.ledger.hold(bench.request("c1"))
    await bench.ledger.hold(bench.request("c2"))
    shell = Shell(tmp_path / "config.db")
    with pytest.raises(StoreUnavailable, match="another program keeps it locked"):
        await bench.ledger.hold(bench.request("c3"))
    settled = await bench.ledger.settle(Settlement("c1", 40, 4, True))
    assert (settled.spooled, settled.caps) == (True, ())
    told: list[Settled] = []
    bench.ledger.settle_soon(Settlement("c2", 50, 5, True), told.append)
    await until(lambda: told)
    assert told[0].spooled
    (spool,) = (tmp_path / "spool").iterdir()
    assert b'"c1"' in spool.read_bytes()
    assert bench.sums() == (0, 200)
    shell.let_go()
    await until(lambda: bench.sums() == (90, 0))
    await until(lambda: spool.read_bytes() == b"")
    assert isinstance(await bench.ledger.hold(bench.request("c4")), Granted)
    await bench.ledger.settle(Settlement("c4", 0, 0, False))
    assert bench.ledger.live == set()


async def test_waiting_calls_are_told_when_the_store_fails(make: Make, tmp_path: Path) -> None:
    bench = await make(foreign_wait_seconds=0.05)
    bench.cap("a", 100)
    await bench.ledger.hold(bench.request("c1"))
    waiting = asyncio.create_task(bench.ledger.hold(bench.request("c2")))
    await until(lambda: bench.ledger.waiting == 1)
    shell = Shell(tmp_path / "config.db")
    with pytest.raises(StoreUnavailable):
        await asyncio.wait_for(waiting, 5)
    shell.let_go()
    await bench.ledger.settle(Settlement("c1", 0, 0, True))


async def test_when_the_spool_fails_too_nothing_new_is_let_through(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = await make(foreign_wait_seconds=0.05)
    bench.cap("a", 1000)
    await bench.ledger.hold(bench.request("c1"))
    shell = Shell(tmp_path / "config.db")
    (tmp_path / "spool").write_text("a file where the directory should be")
    with pytest.raises(StoreUnavailable):
        await bench.ledger.settle(Settlement("c1", 40, 4, True))
    with pytest.raises(StoreUnavailable, match="nothing new is let through"):
        await bench.ledger.hold(bench.request("c2"))
    shell.let_go()
    await until(lambda: bench.sums() == (40, 0))
    assert isinstance(await bench.ledger.hold(bench.request("c3")), Granted)
    await bench.ledger.settle(Settlement("c3", 0, 0, False))
    (tmp_path / "spool").unlink()


async def test_a_commit_that_fails_lets_nobody_through(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = await make()
    bench.cap("a", 1000)
    request = bench.request("c1")
    with bench.database.write() as connection:
        pages = connection.execute("PRAGMA page_count")[0][0]
        connection.execute(f"PRAGMA max_page_count = {pages}")
    answers = await asyncio.gather(
        *(
            bench.ledger.hold(HoldRequest(f"c{number}", ("a",), 1, 1, revision=request.revision, facts=CallFacts(model="x" * 4000)))
            for number in range(30)
        ),
        return_exceptions=True,
    )
    failed = [answer for answer in answers if isinstance(answer, StoreUnavailable)]
    assert failed and "disk is full" in str(failed[0])
    assert bench.sums() == (0, sum(isinstance(answer, Granted) for answer in answers))
    with bench.database.write() as connection:
        connection.execute("PRAGMA max_page_count = 1000000")
    for answer in answers:
        if isinstance(answer, Granted):
            await bench.ledger.settle(Settlement(answer.call_id, 0, 0, False))
    await until(lambda: bench.sums() == (0, 0))


async def test_a_commit_whose_answer_is_lost(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """The batch is on disk, but the writer is told that it failed: holds never left and are voided, settlements count once."""
    bench = await make()
    bench.cap("a", 1000)
    await bench.ledger.hold(bench.request("c1"))
    request = bench.request("c2")
    real = bench.database.write
    losses = ["first"]

    @contextmanager
    def losing(**options: Any) -> Iterator[Connection]:
        with real(**options) as connection:
            yield connection
        if losses:
            losses.clear()
            raise StoreUnavailable("the answer was lost")

    monkeypatch.setattr(bench.database, "write", losing)
    with pytest.raises(StoreUnavailable, match="lost"):
        await bench.ledger.hold(request)
    await until(lambda: bench.sums() == (0, 100))
    losses.append("second")
    assert (await bench.ledger.settle(Settlement("c1", 40, 4, True))).spooled
    await until(lambda: bench.sums() == (40, 0))
    await until(lambda: (bench.directory / "spool").is_dir() and not bench.ledger._writer._spool.pending())
    assert bench.sums() == (40, 0)
    with bench.database.read() as connection:
        kinds = connection.execute("SELECT call_id, kind FROM posts ORDER BY call_id")
    assert kinds == [("c1", "post"), ("c2", "void")]


async def test_a_suspended_neighbour_does_not_hang_callers(make: Make, tmp_path: Path) -> None:
    """Another process sleeps with the file lock in its hand: holds fail within the bound, settlements go to the spool."""
    bench = await make(store_wait_seconds=0.2)
    bench.cap("a", 1000)
    await bench.ledger.hold(bench.request("c1"))
    neighbour = SqliteDatabase.open(tmp_path / "config.db")
    template = bench.request("c2")
    with neighbour.write():
        holding = asyncio.create_task(bench.ledger.hold(template))
        settling = asyncio.create_task(bench.ledger.settle(Settlement("c1", 40, 4, True)))
        with pytest.raises(StoreUnavailable, match="does not answer"):
            await asyncio.wait_for(holding, 3)
        assert (await asyncio.wait_for(settling, 3)).spooled
        with pytest.raises(StoreUnavailable, match="does not answer"):
            await bench.ledger.hold(HoldRequest("c3", ("a",), 1, 1, revision=template.revision))
    await until(lambda: bench.sums() == (40, 0))
    neighbour.close()


# ---- life


async def test_not_started_and_closed(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    with pytest.raises(StoreUnavailable, match="not open"):
        await bench.ledger.hold(HoldRequest("c1", (), 1, 1))
    await bench.ledger.start()
    await bench.ledger.hold(HoldRequest("c1", (), 1, 1))
    await bench.ledger.close()
    await bench.ledger.close()
    with pytest.raises(StoreUnavailable, match="not open"):
        await bench.ledger.hold(HoldRequest("c2", (), 1, 1))
    bench.database.close()


async def test_a_settlement_after_the_end_is_kept_for_the_next_start(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.cap("a", 1000)
    await bench.ledger.start()
    await bench.ledger.hold(bench.request("c1"))
    await bench.ledger.close()
    assert (await bench.ledger.settle(Settlement("c1", 40, 4, True))).spooled
    bench.ledger.settle_soon(Settlement("c1", 40, 4, True))
    bench.ledger._writer._spool.close()
    bench.database.close()
    heir = Bench(tmp_path)
    await heir.ledger.start()
    assert heir.sums() == (40, 0)
    await heir.ledger.close()
    heir.database.close()


async def test_closing_answers_those_who_wait(make: Make) -> None:
    bench = await make()
    bench.cap("a", 100)
    await bench.ledger.hold(bench.request("c1"))
    waiting = asyncio.create_task(bench.ledger.hold(bench.request("c2")))
    await until(lambda: bench.ledger.waiting == 1)
    await bench.ledger.close()
    with pytest.raises(StoreUnavailable, match="stopping"):
        await asyncio.wait_for(waiting, 5)


async def test_everything_handed_in_is_written_before_the_end(make: Make) -> None:
    bench = await make()
    bench.cap("a", 10**6)
    template = bench.request("x")
    for number in range(50):
        await bench.ledger.hold(HoldRequest(f"c{number}", ("a",), 10, 10, revision=template.revision))
        bench.ledger.settle_soon(Settlement(f"c{number}", 3, 1, True))
    await bench.ledger.close()
    assert bench.sums() == (150, 0)


async def test_a_settlement_nobody_waits_for_shares_the_next_holds_commit(make: Make) -> None:
    """One call at a time costs one commit a call, not two."""
    bench = await make()
    bench.cap("a", 10**6)
    template = bench.request("x")
    before = bench.ledger._writer.batches
    for number in range(20):
        await bench.ledger.hold(HoldRequest(f"c{number}", ("a",), 10, 10, revision=template.revision))
        bench.ledger.settle_soon(Settlement(f"c{number}", 3, 1, True))
    await until(lambda: bench.sums() == (60, 0))
    assert bench.ledger._writer.batches - before <= 30


async def test_a_settlement_alone_is_booked_soon(make: Make) -> None:
    bench = await make()
    bench.cap("a", 100)
    await bench.ledger.hold(bench.request("c1"))
    bench.ledger.settle_soon(Settlement("c1", 40, 4, True))
    await until(lambda: bench.sums() == (40, 0))
