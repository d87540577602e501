"""Everything killed at once under load, five times over; and the orderly end: what was spent is known afterwards either way."""

import asyncio
import contextlib
import itertools
import os
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import psutil
import pytest

from tests.support import books
from tests.support.config import budget, config_for, virtual_key
from tests.support.figures import figures
from tests.support.quick import Gateway, PretendProcess
from tests.support.traffic import Answer, Ask, Broken, Wire, one
from tests.support.waiting import eventually

KILLS = 5
CLIENTS = 24
FINISHED_PER_ROUND = 60
"""So many answers are awaited before each kill."""
LIMIT_USD = 50
LOG_GRACE_SECONDS = 30
"""The ledger's posts are given some seconds to get their log row the usual way, before it is made from the ledger."""
KINDS = ("chat", "messages", "gemini", "responses")
SLOW = {"output_tokens": 40, "chunk_tokens": 1, "chunk_delay_ms": 60}


@dataclass
class Load:
    """Clients that call in a loop until their connections die; each call asks for an output length that nobody else asks for."""

    url: str
    numbers: Iterator[int]
    answered: list[Answer] = field(default_factory=list)
    others: list[Answer] = field(default_factory=list)
    _enough: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, kill: Callable[[], None]) -> None:
        clients = [asyncio.create_task(self._client(number)) for number in range(CLIENTS)]
        await asyncio.wait_for(self._enough.wait(), 20)
        await asyncio.to_thread(kill)
        await asyncio.wait_for(asyncio.gather(*clients), 20)

    async def _client(self, client: int) -> None:
        """Half of the clients stream, half of them wait; between a tenth and a third of a second a call."""
        with contextlib.suppress(Broken, ConnectionError):
            async with Wire(self.url) as wire:
                while True:
                    answer = await wire.answer(self._ask(client))
                    if not answer.whole:
                        raise Broken
                    (self.answered if answer.status == 200 else self.others).append(answer)
                    if len(self.answered) >= FINISHED_PER_ROUND:
                        self._enough.set()

    def _ask(self, client: int) -> Ask:
        output = next(self.numbers)
        kind = KINDS[client % len(KINDS)]
        stream = client // len(KINDS) % 2 == 0
        pretend: dict[str, object] = {"output_tokens": output}
        if stream:
            pretend |= {"chunk_tokens": output // 8, "chunk_delay_ms": 20}
        else:
            pretend |= {"first_token_ms": 60 + 5 * client}
        return Ask(kind, stream=stream, limit=output, pretend=pretend)


@dataclass(frozen=True)
class Kill:
    """What one kill left."""

    answered: int
    open_calls: int
    held_nanos: int
    """Of calls in flight, read from the ledger's rows while nothing was running."""


@dataclass(frozen=True)
class Aftermath:
    """After five kills and as many restarts, the gateway running and idle."""

    gateway: Gateway
    bill: dict[str, Any]
    kills: list[Kill]
    posts: list[books.Post]
    spent_nanos: int
    others: list[Answer]

    @property
    def confirmed(self) -> list[books.Post]:
        return [post for post in self.posts if not post.unconfirmed]

    @property
    def unconfirmed(self) -> list[books.Post]:
        return [post for post in self.posts if post.unconfirmed]

    @property
    def finished(self) -> list[dict[str, Any]]:
        return [line for line in self.bill["lines"] if line["finished"]]


@pytest.fixture(scope="module")
def aftermath(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aftermath]:
    keys = [virtual_key(budgets=[budget(LIMIT_USD, reset="1d")])]
    numbers = itertools.count(301)
    kills: list[Kill] = []
    others: list[Answer] = []
    with PretendProcess() as provider:
        gateway = Gateway(tmp_path_factory.mktemp("crash"), config_for(provider.url, virtual_keys=keys))
        with gateway:
            for _ in range(KILLS):
                load = Load(gateway.url, numbers)
                asyncio.run(load.run(gateway.kill9))
                open_holds = books.open_holds(gateway.app_dir)
                kills.append(Kill(len(load.answered), len(open_holds), sum(nanos for _, nanos in open_holds)))
                others += load.others
                gateway.restart()
            bill = eventually(provider.bill, lambda bill: bill["in_flight"] == 0)
            eventually(lambda: books.open_holds(gateway.app_dir), lambda found: not found)
            yield Aftermath(gateway, bill, kills, books.posts(gateway.app_dir), gateway.spent_nanos(), others)


def test_the_load_was_real(aftermath: Aftermath) -> None:
    figures(
        "five kills",
        answered=[kill.answered for kill in aftermath.kills],
        in_flight=[kill.open_calls for kill in aftermath.kills],
        held_nanos=[kill.held_nanos for kill in aftermath.kills],
        provider_calls=aftermath.bill["calls"],
        provider_finished=len(aftermath.finished),
    )
    assert [kill for kill in aftermath.kills if kill.answered < FINISHED_PER_ROUND] == []
    assert [kill for kill in aftermath.kills if not kill.open_calls] == [], "a kill that hit nothing proves nothing"
    assert aftermath.bill["unfinished"]["calls"] > 0
    assert [(answer.status, answer.body) for answer in aftermath.others] == []


def test_spend_lies_between_the_bill_and_the_bill_with_the_holds(aftermath: Aftermath) -> None:
    finished = sum(line["cost_nanos"] for line in aftermath.finished)
    held = sum(kill.held_nanos for kill in aftermath.kills)
    figures(
        "five kills",
        spent=aftermath.spent_nanos,
        billed_finished=finished,
        billed_in_all=aftermath.bill["cost_nanos"],
        held_at_kills=held,
        unconfirmed=len(aftermath.unconfirmed),
    )
    assert finished <= aftermath.spent_nanos <= finished + held
    # Stronger: what was broken off is covered, too, because each call's hold is at least what the provider made of it.
    assert aftermath.bill["cost_nanos"] <= aftermath.spent_nanos


def test_calls_in_flight_are_posted_at_their_holds(aftermath: Aftermath) -> None:
    assert len(aftermath.unconfirmed) == sum(kill.open_calls for kill in aftermath.kills)
    assert sum(post.cost_nanos for post in aftermath.unconfirmed) == sum(kill.held_nanos for kill in aftermath.kills)
    assert all(post.cost_nanos == post.held_nanos > 0 for post in aftermath.unconfirmed)
    assert aftermath.spent_nanos == sum(post.cost_nanos for post in aftermath.posts)


def test_no_call_is_booked_twice_and_none_is_lost(aftermath: Aftermath) -> None:
    """Every output length was asked for once, so a post and a line of the bill that share one are the same call."""
    assert max(Counter(post.call_id for post in aftermath.posts).values()) == 1
    billed = {line["usage"]["output_tokens"]: line["cost_nanos"] for line in aftermath.finished}
    assert len(billed) == len(aftermath.finished)
    booked = {post.output_tokens: post.cost_nanos for post in aftermath.confirmed}
    assert len(booked) == len(aftermath.confirmed)
    assert {length: billed.get(length) for length in booked} == booked
    in_doubt = set(billed) - set(booked)
    figures("five kills", confirmed=len(booked), finished_but_unconfirmed=len(in_doubt))
    assert len(in_doubt) <= len(aftermath.unconfirmed)
    # What a client has got whole, the provider has billed.
    assert sum(kill.answered for kill in aftermath.kills) <= len(billed)


def test_verify_finds_nothing(aftermath: Aftermath) -> None:
    report = books.replayed(aftermath.gateway.app_dir)
    assert (report.differences, report.open_holds, report.posts) == ((), 0, len(aftermath.posts))
    code, told = books.verify_command(aftermath.gateway)
    assert (code, told["clean"], told["postings"]) == (0, True, len(aftermath.posts))
    assert books.held_nanos(aftermath.gateway.app_dir) == 0


def test_it_goes_on_where_it_was(aftermath: Aftermath) -> None:
    answer = asyncio.run(one(aftermath.gateway.url, Ask(limit=300, pretend={"output_tokens": 300})))
    assert answer.status == 200
    spent = eventually(aftermath.gateway.spent_nanos, lambda nanos: nanos > aftermath.spent_nanos)
    assert spent - aftermath.spent_nanos == 300 * 600 + answer.json["usage"]["prompt_tokens"] * 150
    assert "Traceback" not in aftermath.gateway.log()


# One of two workers dies


async def over_both(gateway: Gateway, workers: Sequence[int]) -> list[Wire]:
    """Open connections of which each worker has some: a burst may well go to a single one, so it is tried again."""
    for _ in range(20):
        wires = [Wire(gateway.url) for _ in range(CLIENTS)]
        for wire in wires:
            await wire.open()

        def shares() -> list[int]:
            return [connections(worker, gateway.port) for worker in workers]

        found = await asyncio.to_thread(eventually, shares, lambda each: sum(each) >= CLIENTS)
        if min(found) > 0:
            return wires
        for wire in wires:
            wire.leave()
        await asyncio.to_thread(eventually, shares, lambda each: not sum(each))
    raise AssertionError(f"twenty times all {CLIENTS} connections went to one worker")


def connections(worker: int, port: int) -> int:
    """How many clients this worker has."""
    found = psutil.Process(worker).net_connections("tcp")
    return sum(one.status == psutil.CONN_ESTABLISHED and one.laddr.port == port for one in found)


def test_a_worker_that_dies_takes_nothing_of_its_neighbour_along(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Its calls in flight are posted at their holds, those of the other worker end as they would have, service goes on."""
    keys = [virtual_key(budgets=[budget(LIMIT_USD)])]
    app_dir = tmp_path_factory.mktemp("worker")
    with PretendProcess() as provider:
        with Gateway(app_dir, config_for(provider.url, virtual_keys=keys), arguments=("--workers", "2")) as gateway:
            workers = books.running_workers(app_dir)
            assert len(workers) == 2

            async def half_survive() -> tuple[int, int]:
                wires = await over_both(gateway, workers)
                asks = [
                    Ask(
                        KINDS[number % 4],
                        stream=True,
                        limit=301 + number,
                        pretend=SLOW | {"output_tokens": 301 + number, "chunk_tokens": 12},
                    )
                    for number in range(CLIENTS)
                ]
                calls = [asyncio.create_task(wire.answer(ask)) for wire, ask in zip(wires, asks, strict=True)]
                await asyncio.to_thread(eventually, provider.bill, lambda bill: bill["in_flight"] == CLIENTS)
                os.kill(workers[0], signal.SIGKILL)
                results = await asyncio.gather(*calls, return_exceptions=True)
                for wire in wires:
                    wire.leave()
                whole = sum(isinstance(result, Answer) and result.whole for result in results)
                return whole, len(results) - whole

            whole, broken = asyncio.run(half_survive())
            posts = eventually(lambda: books.posts(app_dir), lambda posts: len(posts) == CLIENTS)
            bill = eventually(provider.bill, lambda bill: bill["in_flight"] == 0)
            unconfirmed = [post for post in posts if post.unconfirmed]
            figures(
                "one of two workers killed",
                whole=whole,
                broken=broken,
                unconfirmed=len(unconfirmed),
                spent=gateway.spent_nanos(),
                billed_finished=bill["finished"]["cost_nanos"],
                held_nanos=sum(post.held_nanos for post in unconfirmed),
            )
            assert min(whole, broken) > 0, "the connections were to be spread over both"
            assert len(unconfirmed) == broken
            assert {post.output_tokens: post.cost_nanos for post in posts if not post.unconfirmed} == {
                line["usage"]["output_tokens"]: line["cost_nanos"] for line in bill["lines"] if line["finished"]
            }
            finished = bill["finished"]["cost_nanos"]
            assert finished <= gateway.spent_nanos() <= finished + sum(post.held_nanos for post in unconfirmed)
            eventually(lambda: books.running_workers(app_dir), lambda now: len(now) == 2 and workers[0] not in now, 15)
            assert asyncio.run(one(gateway.url, Ask())).status == 200
            eventually(lambda: books.open_holds(app_dir), lambda found: not found)
            assert books.replayed(app_dir).clean


# The orderly end


def refused(port: int) -> bool:
    """Whether a new connection is refused, or closed without an answer."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.settimeout(5)
            connection.sendall(b"GET /health HTTP/1.1\r\nhost: gateway.test\r\n\r\n")
            return connection.recv(1) == b""
    except ConnectionError:
        return True
    except TimeoutError:
        return False


def test_sigterm_lets_calls_finish_and_nobody_in(tmp_path_factory: pytest.TempPathFactory) -> None:
    keys = [virtual_key(budgets=[budget(1)])]
    app_dir = tmp_path_factory.mktemp("drain")
    with PretendProcess() as provider, Gateway(app_dir, config_for(provider.url, virtual_keys=keys)) as gateway:

        async def drained() -> tuple[Answer, Answer, bool, int, float]:
            async with Wire(gateway.url) as stream, Wire(gateway.url) as buffered:
                await stream.send(Ask(stream=True, limit=40, pretend=SLOW))
                await stream.head()
                first = await stream.piece()
                await buffered.send(Ask("messages", limit=50, pretend={"output_tokens": 50, "first_token_ms": 1500}))
                await asyncio.to_thread(eventually, provider.bill, lambda bill: bill["in_flight"] == 2)
                started = time.monotonic()
                ending = asyncio.create_task(asyncio.to_thread(gateway.terminate, 30))
                turned_away = await asyncio.to_thread(eventually, lambda: refused(gateway.port), lambda gone: gone, 2)
                running = gateway.running()
                rest = await stream.rest()
                await buffered.head()
                whole = await buffered.rest()
                code = await ending
                assert first is not None and running, "the gateway ended before its calls had"
                streamed = Answer(rest.status, rest.headers, [first, *rest.chunks], rest.whole)
                return streamed, whole, turned_away, code, time.monotonic() - started

        streamed, buffered, turned_away, code, seconds = asyncio.run(drained())
        bill = provider.bill()
        figures("SIGTERM", exit_code=code, seconds=round(seconds, 2), billed=bill["cost_nanos"], finished=bill["finished"]["calls"])
        assert (streamed.status, streamed.whole, streamed.events()[-1]) == (200, True, ("", "[DONE]"))
        assert (buffered.status, buffered.whole, buffered.json["usage"]["output_tokens"]) == (200, True, 50)
        assert turned_away
        assert code == 0
        assert bill["finished"]["calls"] == 2
        # Nothing is running now: all of it is on disk.
        assert books.open_holds(app_dir) == []
        assert sorted(post.cost_nanos for post in books.posts(app_dir)) == sorted(line["cost_nanos"] for line in bill["lines"])
        assert not [post for post in books.posts(app_dir) if post.estimated or post.unconfirmed]
        rows = gateway.log_rows()
        assert {row["id"] for row in rows if row["cost_nanos"]} == {post.call_id for post in books.posts(app_dir)}, rows
        assert "Traceback" not in gateway.log()

        gateway.restart()
        assert gateway.spent_nanos() == bill["cost_nanos"]
        assert gateway.terminate() == 0
        assert "Traceback" not in gateway.log()


def test_a_call_that_outlives_the_grace_is_ended_and_charged_for_what_came(tmp_path_factory: pytest.TempPathFactory) -> None:
    keys = [virtual_key(budgets=[budget(1)])]
    app_dir = tmp_path_factory.mktemp("grace")
    with PretendProcess() as provider:
        config = config_for(provider.url, virtual_keys=keys)
        with Gateway(app_dir, config, arguments=("--grace", "1")) as gateway:

            async def ended() -> tuple[Answer, int]:
                async with Wire(gateway.url) as wire:
                    await wire.send(Ask(stream=True, limit=1000, pretend=SLOW | {"output_tokens": 1000}))
                    await wire.head()
                    first = await wire.piece()
                    ending = asyncio.create_task(asyncio.to_thread(gateway.terminate, 30))
                    rest = await wire.rest()
                    assert first is not None
                    return Answer(rest.status, rest.headers, [first, *rest.chunks], rest.whole), await ending

            answer, code = asyncio.run(ended())
            bill = eventually(provider.bill, lambda bill: bill["in_flight"] == 0)
            (post,) = books.posts(app_dir)
            figures(
                "grace over",
                exit_code=code,
                billed=bill["cost_nanos"],
                posted=post.cost_nanos,
                held=post.held_nanos,
                note=post.note,
            )
            assert code == 0
            assert not answer.whole
            assert bill["lines"][0]["outcome"] == "gone"
            assert (post.note, post.estimated, post.unconfirmed) == ("stopped", True, False)
            assert bill["cost_nanos"] <= post.cost_nanos < post.held_nanos
            assert books.open_holds(app_dir) == []


def test_sigint_ends_it_as_well(tmp_path_factory: pytest.TempPathFactory) -> None:
    with PretendProcess() as provider, Gateway(tmp_path_factory.mktemp("interrupt"), config_for(provider.url)) as gateway:
        asyncio.run(one(gateway.url, Ask()))
        spent = eventually(gateway.spent_nanos, lambda nanos: nanos > 0)
        os.kill(gateway.pid, signal.SIGINT)
        eventually(gateway.running, lambda running: not running, 15)
        assert gateway.terminate() == 0
        gateway.restart()
        assert gateway.spent_nanos() == spent


# The logs of the five kills, once the seconds are over that a late row is given


def test_every_post_has_a_log_row_with_its_cost(aftermath: Aftermath) -> None:
    wanted = {post.call_id: post.cost_nanos for post in aftermath.posts}

    def rows() -> dict[str, dict[str, Any]]:
        return {row["id"]: row for row in aftermath.gateway.log_rows()}

    found = eventually(rows, lambda rows: set(wanted) <= set(rows), LOG_GRACE_SECONDS)
    made = [row for row in found.values() if str(row["message"]).startswith("row made from the ledger")]
    figures("five kills", posts=len(wanted), log_rows=len(found), made_from_the_ledger=len(made))
    assert {call_id: row["cost_nanos"] for call_id, row in found.items() if call_id in wanted} == wanted
    assert {found[post.call_id]["status"] for post in aftermath.unconfirmed} == {"unconfirmed"}
    assert len(made) >= len(aftermath.unconfirmed)
