"""Processes that are killed and suspended at random under load, on SQLite: the provider's own bill against the books."""

import itertools
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import pytest

from store.filelock import FileLock
from tests.support import books, process_list
from tests.support.config import budget, config_for, virtual_key
from tests.support.crowd import FIRST_LENGTH, Crowd, Heard
from tests.support.figures import figures
from tests.support.judge import Rows, Verdict, judge, log_watermark, logs_agree, settled, sqlite_query
from tests.support.quick import Gateway, PretendProcess
from tests.support.waiting import eventually

SEED = int(os.environ.get("TOLLGATE_FAULT_SEED", "20261123"))
"""Another seed kills others, at other moments."""
CLIENTS = 20
LIMIT_USD = 5_000
LOG_SECONDS = 60
"""The logs wait ten seconds for a row from a worker before they make it from the ledger, and look every five."""
VICTIMS = ("worker", "worker", "console", "supervisor", "everything", "worker", "both workers")


def config(provider: PretendProcess) -> dict[str, object]:
    return config_for(provider.url, virtual_keys=[virtual_key(budgets=[budget(LIMIT_USD, reset="30d")])])


# -- kill -9


@dataclass
class Havoc:
    """A gateway with two workers, its clients, and somebody with a gun."""

    gateway: Gateway
    random: Random
    rows: Rows
    killed: set[int] = field(default_factory=set)
    history: list[str] = field(default_factory=list)
    draining: list[tuple[float, float]] = field(default_factory=list)
    """When workers without a supervisor were finishing their calls: new ones are told to come back."""

    def strike(self, victim: str) -> None:
        self.history.append(victim)
        supervisor = self.gateway.pid
        if victim == "worker":
            self._kill(self.random.choice(self._both_workers()))
        elif victim == "both workers":
            for pid in self._both_workers():
                self._kill(pid)
        elif victim == "console":
            process_list.kill9(process_list.console(supervisor))
        elif victim == "supervisor":
            # Its children see the end of their lifeline: they finish their calls and go. A new gateway starts beside them.
            began = time.monotonic()
            os.kill(supervisor, signal.SIGKILL)
            self._start_another()
            self.draining.append((began, time.monotonic()))
        else:
            self.killed.update(process_list.workers(supervisor))
            self.gateway.restart()

    def _kill(self, pid: int) -> None:
        self.killed.add(pid)
        process_list.kill9(pid)

    def _both_workers(self) -> list[int]:
        return eventually(lambda: process_list.workers(self.gateway.pid), lambda found: len(found) == 2, 30)

    def _start_another(self) -> None:
        self.gateway = Gateway(self.gateway.app_dir, None, arguments=("--workers", "2"))
        self.gateway.start()


@dataclass(frozen=True)
class Kills:
    """What seven kills have left: the gateway runs and is idle."""

    gateway: Gateway
    rows: Rows
    heard: list[Heard]
    verdict: Verdict
    dead_epochs: set[str]
    draining: list[tuple[float, float]]


@pytest.fixture(scope="module")
def kills(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kills]:
    app_dir = tmp_path_factory.mktemp("kills")
    random = Random(SEED)
    victims = random.sample(VICTIMS, len(VICTIMS))
    started: list[Gateway] = []
    rows = Rows(sqlite_query(app_dir / "config.db"))
    with PretendProcess() as provider:
        havoc = Havoc(Gateway(app_dir, config(provider), arguments=("--workers", "2")), random, rows)
        try:
            havoc.gateway.start()
            with Crowd(lambda: havoc.gateway.url, clients=CLIENTS) as crowd:
                for victim in victims:
                    started.append(havoc.gateway)
                    crowd.wait_for_good(random.randint(10, 40))
                    havoc.strike(victim)
                crowd.wait_for_good(20)
            started.append(havoc.gateway)
            settled(rows)
            bill = eventually(provider.bill, lambda bill: bill["in_flight"] == 0)
            dead = rows.epochs_of(havoc.killed)
            figures("kills", seed=SEED, victims=havoc.history)
            verdict = judge(bill, rows, crowd.heard, dead_epochs=dead)
            yield Kills(havoc.gateway, rows, crowd.heard, verdict, dead, havoc.draining)
        finally:
            for gateway in {id(one): one for one in [*started, havoc.gateway]}.values():
                gateway.kill9()


def test_random_kills_leave_the_books_within_the_promise(kills: Kills) -> None:
    """The judgement itself is made by the fixture, while the gateway is as the last kill has left it."""
    verdict = kills.verdict
    figures("kills", **{name: getattr(verdict, name) for name in verdict.__slots__})
    assert verdict.in_doubt > 0, "kills that hit no call prove nothing"
    assert verdict.billed > verdict.billed_finished
    elsewhere = [one for one in kills.heard if one.refusal and not any(a <= one.started <= b for a, b in kills.draining)]
    assert elsewhere == [], "nobody was to be refused but by a worker that was going"
    assert {one.refusal for one in kills.heard} <= {"", "gateway_unavailable"}
    assert kills.gateway.spent_nanos() == verdict.spent


def test_calls_of_other_workers_were_not_hurt(kills: Kills) -> None:
    """A call that broke in the middle of its answer belonged to a process that was killed; the rest of them ended well."""
    epoch_of = {call.call_id: call.epoch for call in kills.rows.booked().values()}
    hurt = [one for one in kills.heard if one.call_id and not one.whole]
    figures("kills", good=sum(one.good for one in kills.heard), broken_in_the_middle=len(hurt))
    assert {epoch_of[one.call_id] for one in hurt} <= kills.dead_epochs
    assert "TimeoutError" not in {one.fault for one in kills.heard}, "a client has waited in vain"


def test_verify_is_clean_after_the_kills(kills: Kills) -> None:
    code, told = books.verify_command(kills.gateway)
    assert (code, told["clean"]) == (0, True)
    assert books.replayed(kills.gateway.app_dir).clean
    assert "Traceback" not in kills.gateway.log()


# -- SIGSTOP


def test_a_suspended_worker_keeps_its_holds_and_settles_them_when_it_wakes(tmp_path: Path) -> None:
    """On SQLite a lease is a file lock, which a suspended process keeps: others recover the dead's calls and leave its own alone.

    The supervisor stands still as well meanwhile, so that nobody takes the worker for wedged and replaces it.
    """
    rows = Rows(sqlite_query(tmp_path / "config.db"))
    with PretendProcess() as provider, Gateway(tmp_path, config(provider), arguments=("--workers", "3")) as gateway:
        with Crowd(lambda: gateway.url, clients=CLIENTS, delay_ms=60) as crowd:
            crowd.wait_for_good(CLIENTS)
            sleeper, victim = eventually(lambda: busy_workers(gateway, rows), lambda found: len(found) >= 2, 30)[:2]
            process_list.suspend(gateway.pid)
            try:
                (asleep,), dead = rows.epochs_of([sleeper]), rows.epochs_of([victim])
                process_list.suspend_when(sleeper, lambda: not writing(tmp_path) and asleep in rows.open_calls().values())
                waiting = {call for call, epoch in rows.open_calls().items() if epoch == asleep}
                eventually(rows.open_calls, lambda found: bool(dead & set(found.values())), 30)
                process_list.kill9(victim)
                eventually(rows.open_calls, lambda found: not dead & set(found.values()), 30)
                # A pass of recovery has just been made, by the third worker: it has taken the one and left the other.
                assert {call for call, epoch in rows.open_calls().items() if epoch == asleep} == waiting
                crowd.wait_for_good(CLIENTS // 4)
            finally:
                process_list.resume(sleeper)
                process_list.resume(gateway.pid)
            eventually(rows.open_calls, lambda found: not waiting & set(found), 30)
            crowd.wait_for_good(CLIENTS)
        settled(rows)
        bill = eventually(provider.bill, lambda bill: bill["in_flight"] == 0)
        verdict = judge(bill, rows, crowd.heard, dead_epochs=dead)
        figures("suspended", waiting=len(waiting), **{name: getattr(verdict, name) for name in verdict.__slots__})
        booked = rows.booked()
        assert waiting and {booked[call].kinds for call in waiting} == {("post",)}
        assert sleeper in process_list.workers(gateway.pid), "it was not to be replaced"
        assert books.replayed(tmp_path).clean
        assert "taken for dead" not in gateway.log()


def busy_workers(gateway: Gateway, rows: Rows) -> list[int]:
    """Those that have calls at this moment: a listening socket does not share its connections out evenly."""
    holding = set(rows.open_calls().values())
    return [pid for pid in process_list.workers(gateway.pid) if rows.epochs_of([pid]) & holding]


def writing(app_dir: Path) -> bool:
    """Whether somebody keeps the ledger's lock for longer than a transaction takes."""
    lock = FileLock(app_dir / "config.db.lock")
    try:
        return not lock.acquire(0.5)
    finally:
        lock.close()


def test_lengths_are_different_for_every_call() -> None:
    """What the judgement rests on."""
    crowd = Crowd(lambda: "", lengths=itertools.count(FIRST_LENGTH))
    asks = [crowd._ask(client) for client in range(40)]
    assert len({ask.limit for ask in asks}) == 40
    assert {ask.stream for ask in asks} == {True, False}


# -- the logs, once the ten seconds are over that a late row is given


def test_the_logs_are_complete_up_to_their_watermark(kills: Kills) -> None:
    app_dir, last = kills.gateway.app_dir, kills.rows.last_sequence()
    marks = [logs_agree(kills.rows, kills.gateway.log_rows, lambda: log_watermark(app_dir / "logs.db"))]
    eventually(lambda: log_watermark(app_dir / "logs.db"), lambda mark: mark == last, LOG_SECONDS)
    marks.append(logs_agree(kills.rows, kills.gateway.log_rows, lambda: log_watermark(app_dir / "logs.db")))
    figures("kills", posts=last, watermarks=marks)
