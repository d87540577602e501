"""Two nodes with two workers each on one PostgreSQL, whose server and network are hurt under load; then one node is killed.

The gateways reach the server through a forwarder, which stands for the network. They go through all of it test by test in this
order, and the books are judged over everything since the start.
"""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import cycle

import psycopg
import pytest
from psycopg import conninfo

from tests.support import books, process_list
from tests.support.config import budget, config_for, virtual_key
from tests.support.figures import figures
from tests.support.forwarder import Forwarder
from tests.support.judge import Query, Rows, postgres_query, settled
from tests.support.ordeal import CLIENTS, REFUSED_WITHIN_SECONDS, SLACK_SECONDS, Ordeal
from tests.support.overshoot import Arena, on_postgres, probe_key
from tests.support.postgres import Databases, PostgresServer
from tests.support.quick import Gateway, PretendProcess
from tests.support.waiting import eventually

STALE_SECONDS = 90
"""How long the recovery of a dead node may take: its heartbeat is stale after fifteen seconds, then somebody has to look."""


class Nodes(Ordeal):
    """Two gateways with app directories of their own on one database."""

    def __init__(self, provider: PretendProcess, gateways: list[Gateway], server: PostgresServer, forwarder: Forwarder, dsn: str):
        self.gateways = gateways
        self.server = server
        self.forwarder = forwarder
        self.query: Query = postgres_query(dsn)
        self._turns = cycle(gateways)
        super().__init__(provider, Rows(self.query), lambda: next(self._turns).url, [gateway.app_dir for gateway in gateways])

    def workers(self) -> list[int]:
        return [pid for gateway in self.gateways for pid in process_list.workers(gateway.pid)]

    def log(self) -> str:
        return "".join(gateway.log() for gateway in self.gateways)

    def log_costs(self) -> dict[str, int]:
        """The cost of each call in the logs."""
        return {row[0]: row[1] for row in self.query("SELECT id, cost_nanos FROM calls")}


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    server = PostgresServer()
    try:
        yield server
    finally:
        server.remove()


@pytest.fixture(scope="module")
def nodes(server: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    databases = Databases(server.dsn)
    address = databases.fresh()
    dsn = conninfo.make_conninfo(server.dsn, dbname=address.db_name)
    with ExitStack() as stack:
        provider = stack.enter_context(PretendProcess())
        forwarder = stack.enter_context(Forwarder(server.host, server.port))
        keys = [virtual_key(budgets=[budget(5_000, reset="30d")]), probe_key()]
        plain = config_for(provider.url, virtual_keys=keys, gateway={"trim_output": False})
        config = on_postgres(plain, databases.settings(address) | {"port": forwarder.port})
        gateways = [
            stack.enter_context(Gateway(tmp_path_factory.mktemp(name), config, arguments=("--workers", "2"))) for name in "ab"
        ]
        yield Nodes(provider, gateways, server, forwarder, dsn)


@contextmanager
def stopped(server: PostgresServer, how: signal.Signals) -> Iterator[None]:
    server.stop(how)
    try:
        yield
    finally:
        server.start()


def test_the_server_is_stopped_and_started(nodes: Nodes) -> None:
    nodes.endure("fast shutdown", lambda: stopped(nodes.server, signal.SIGINT), spools=True)


def test_the_server_crashes_and_recovers(nodes: Nodes) -> None:
    nodes.endure("immediate shutdown", lambda: stopped(nodes.server, signal.SIGQUIT), spools=True)


def test_the_network_swallows_everything_for_a_while(nodes: Nodes) -> None:
    nodes.endure("silence", lambda: silence(nodes), spools=True)


@contextmanager
def silence(nodes: Nodes) -> Iterator[None]:
    with nodes.forwarder.silence():
        for gateway in nodes.gateways:
            began = time.monotonic()
            assert gateway.health() == 503
            assert time.monotonic() - began < REFUSED_WITHIN_SECONDS + SLACK_SECONDS
        yield
    assert [eventually(gateway.health, lambda status: status == 200, 20) for gateway in nodes.gateways] == [200, 200]


def test_connections_that_were_forgotten_on_the_way_are_given_up(nodes: Nodes) -> None:
    """As after a firewall has lost its table: what was connected stays silent for ever, and new connections are as good as any.

    The server has not been told either: it keeps what a forgotten edit has locked for half a minute, a forgotten batch's for less.
    """
    nodes.endure("forgotten", lambda: forgotten(nodes.forwarder), spools=False, total=False, patience_seconds=60)


@contextmanager
def forgotten(forwarder: Forwarder) -> Iterator[None]:
    forwarder.forget()
    yield


def test_sessions_are_ended_again_and_again(nodes: Nodes) -> None:
    """Some calls pass in between and some are refused; all of them are booked once."""
    nodes.endure("sessions ended", lambda: sessions_ended(nodes.server), spools=False, total=False)


@contextmanager
def sessions_ended(server: PostgresServer) -> Iterator[None]:
    over = threading.Event()

    def end_them() -> None:
        with psycopg.connect(server.dsn, autocommit=True) as connection:
            while not over.wait(0.1):
                connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname LIKE 'test%'")

    thread = threading.Thread(target=end_them)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(10)


def test_after_all_that_the_same_processes_serve_and_the_books_are_whole(nodes: Nodes) -> None:
    assert "started again" not in nodes.log(), "it was to go on without a restart"
    for gateway in nodes.gateways:
        code, told = books.verify_command(gateway)
        assert (code, told["clean"]) == (0, True)
    assert "Traceback" not in nodes.log()


def test_one_node_is_killed_and_a_worker_of_the_other_sleeps_past_its_heartbeat(nodes: Nodes) -> None:
    """The rest recovers the holds of both and serves on. The sleeper wakes, corrects what was guessed, and holds under a new epoch.

    The sleeper's supervisor stands still as well, so that nobody takes the worker for wedged and replaces it.
    """
    survivor, victim = nodes.gateways
    with nodes.crowd(delay_ms=100) as crowd:
        crowd.wait_for_good(CLIENTS)
        dead_pids = process_list.workers(victim.pid)
        sleeper, awake = process_list.workers(survivor.pid)
        nodes._turns = cycle([survivor])
        victim.kill9()
        dead = nodes.rows.epochs_of(dead_pids)
        process_list.suspend(survivor.pid)
        try:
            asleep = nodes.rows.epochs_of([sleeper])
            process_list.suspend_when(sleeper, lambda: bool(asleep & set(nodes.rows.open_calls().values())))
            waiting = {call for call, epoch in nodes.rows.open_calls().items() if epoch in asleep}
            crowd.wait_for_good(CLIENTS // 4)
            eventually(lambda: set(nodes.rows.open_calls().values()), lambda epochs: not epochs & (dead | asleep), STALE_SECONDS)
            recovered = nodes.rows.booked()
            crowd.wait_for_good(CLIENTS // 4)
        finally:
            process_list.resume(sleeper)
            process_list.resume(survivor.pid)
        assert waiting and all(recovered[call].in_doubt for call in waiting)
        eventually(lambda: nodes.rows.epochs_of([sleeper]) - asleep, bool, 60)
        crowd.wait_for_good(CLIENTS)
    verdict = nodes.judged(dead_epochs=frozenset(dead), adjusted=True)
    booked = nodes.rows.booked()
    figures("node killed", slept=len(waiting), **{name: getattr(verdict, name) for name in verdict.__slots__})
    assert verdict.in_doubt > 0
    assert {booked[call].kinds for call in waiting} == {("unconfirmed", "adjust")}
    assert {sleeper, awake} == set(process_list.workers(survivor.pid)), "neither was to be replaced"
    assert "was taken for dead" in survivor.log()
    code, told = books.verify_command(survivor)
    assert (code, told["clean"]) == (0, True)
    # The dead node comes back and finds nothing left to do.
    victim.restart()
    nodes._turns = cycle(nodes.gateways)
    with nodes.crowd() as crowd:
        crowd.wait_for_good(CLIENTS)
    nodes.judged(dead_epochs=frozenset(dead), adjusted=True)


def test_the_logs_of_both_nodes_are_complete_in_the_end(nodes: Nodes) -> None:
    booked = nodes.rows.booked()
    eventually(lambda: set(booked) - set(nodes.log_costs()), lambda missing: not missing, 60)
    eventually(
        lambda: {call for call, cost in nodes.log_costs().items() if call in booked and cost != booked[call].cost_nanos},
        lambda wrong: not wrong,
        60,
    )


# -- one budget over two nodes


def test_500_parallel_calls_over_two_nodes_pass_no_cap_and_leave_no_room_unused(nodes: Nodes) -> None:
    """Three of the hundred runs that bench/overshoot.py makes."""
    earlier = max(nodes.rows.booked())
    arena = Arena(nodes.provider, nodes.gateways, nodes.rows, seed=1)
    runs = [arena.crowd(500) for _ in range(3)]
    for run in runs:
        figures("crowd", **{name: getattr(run, name) for name in run.__slots__})
    settled(nodes.rows)
    assert [run.overshoot for run in runs] == [0, 0, 0]
    assert [run.falsely_refused for run in runs] == [0, 0, 0]
    assert [run.wrong for run in runs] == [0, 0, 0]
    assert [run.spent - run.billed for run in runs] == [0, 0, 0]
    assert all(100 <= run.good < 500 for run in runs)
    holders = {row[0] for row in nodes.query(f"SELECT epoch FROM holds WHERE call_id > '{earlier}'")}
    assert len(holders) == 4, "all four workers were to hold"
