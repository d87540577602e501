"""The SQLite store cannot be written for a while: calls are refused at once, nothing is lost, and it goes on without a restart."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import books, process_list, store_faults
from tests.support.config import budget, config_for, virtual_key
from tests.support.judge import Rows, sqlite_query
from tests.support.ordeal import Ordeal
from tests.support.quick import Gateway, PretendProcess
from tests.support.waiting import eventually


class World(Ordeal):
    """One gateway with two workers."""

    def __init__(self, provider: PretendProcess, gateway: Gateway) -> None:
        self.gateway = gateway
        self.app_dir = gateway.app_dir
        self.workers = process_list.workers(gateway.pid)
        super().__init__(provider, Rows(sqlite_query(self.app_dir / "config.db")), lambda: gateway.url, [self.app_dir])


def served(app_dir: Path, provider: PretendProcess) -> Gateway:
    keys = [virtual_key(budgets=[budget(5_000, reset="30d")])]
    return Gateway(app_dir, config_for(provider.url, virtual_keys=keys), arguments=("--workers", "2"))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with PretendProcess() as provider, served(tmp_path_factory.mktemp("store"), provider) as gateway:
        yield World(provider, gateway)


def test_another_program_has_locked_the_database(world: World) -> None:
    world.endure("locked by a shell", lambda: store_faults.locked_by_a_shell(world.app_dir / "config.db"), spools=True)


def test_a_process_sleeps_while_it_holds_the_lock(world: World) -> None:
    world.endure("locked by a sleeper", lambda: store_faults.locked_by_a_sleeper(world.app_dir / "config.db"), spools=True)


@pytest.mark.skipif(not store_faults.can_limit_size(), reason="the size of files cannot be limited from outside here")
def test_the_store_has_no_room_but_the_spool_has(world: World) -> None:
    wal = world.app_dir / "config.db-wal"
    assert wal.stat().st_size > store_faults.ONE_PAGE
    world.endure("no room", lambda: store_faults.size_limit(world.workers), spools=True)


def test_the_database_turns_read_only(world: World) -> None:
    if not store_faults.can_freeze_files(world.app_dir):
        pytest.skip("files cannot be made immutable here")
    files = [world.app_dir / name for name in ("config.db", "config.db-wal", "logs.db", "logs.db-wal")]
    world.endure("read-only", lambda: store_faults.read_only(files), spools=True)


def test_after_all_that_the_same_processes_serve_and_the_books_are_whole(world: World) -> None:
    assert process_list.workers(world.gateway.pid) == world.workers, "it was to go on without a restart"
    code, told = books.verify_command(world.gateway)
    assert (code, told["clean"]) == (0, True)
    booked = world.rows.booked()
    rows = eventually(lambda: {row["id"]: row for row in world.gateway.log_rows()}, lambda rows: set(booked) <= set(rows), 30)
    assert [call_id for call_id, call in booked.items() if rows[call_id]["cost_nanos"] != call.cost_nanos] == []
    assert "Traceback" not in world.gateway.log()


@pytest.mark.skipif(not store_faults.can_mount(), reason="only root can mount a small disk")
def test_the_disk_is_full_for_store_and_spool(tmp_path: Path) -> None:
    """Settlements then wait in memory, and nothing new is let through until they are safe."""
    with store_faults.small_disk(tmp_path / "disk", 24) as disk, PretendProcess() as provider:
        with served(disk / "app", provider) as gateway:
            full = World(provider, gateway)
            full.endure("disk full", lambda: store_faults.filled(disk), spools=False)
            assert process_list.workers(gateway.pid) == full.workers
            assert "the disk is full" in gateway.log()
            assert books.replayed(gateway.app_dir).clean
