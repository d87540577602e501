"""The keeper of the governance: never older than asked for, one look for many callers, and in force when the store is gone."""

import asyncio
import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from addons import snapshots
from addons.snapshots import SnapshotKeeper
from store.config_store.secret_file import fingerprint
from store.config_store.snapshot import Snapshot
from store.errors import StoreUnavailable, UserError
from tests.support import calls


class Store:
    """Where snapshots come from: counts its loads, and can be out of reach."""

    def __init__(self) -> None:
        self.at = 1
        self.loads = 0
        self.looks = 0
        self.fault: Exception | None = None
        self.threads: set[int] = set()
        self.loaded_again = asyncio.Event()
        """A look has come after the one that loaded: the loaded snapshot is in force."""
        self._loop = asyncio.get_running_loop()

    def load(self, before: Snapshot | None) -> Snapshot:
        self.threads.add(threading.get_ident())
        if self.fault is not None:
            raise self.fault
        self.loads += 1
        return calls.snapshot(revision=self.at)

    def revision(self) -> int:
        if self.fault is not None:
            raise self.fault
        self.looks += 1
        if self.loads:
            self._loop.call_soon_threadsafe(self.loaded_again.set)
        return self.at

    def keeper(self) -> SnapshotKeeper:
        return SnapshotKeeper(self.load, self.revision, calls.snapshot(revision=1))


async def test_nothing_is_loaded_while_nothing_is_new() -> None:
    store = Store()
    keeper = store.keeper()
    await keeper.refresh(1)
    assert (store.loads, keeper.current.revision) == (0, 1)


async def test_refresh_returns_at_the_revision_or_later() -> None:
    store = Store()
    keeper = store.keeper()
    store.at = 5
    await keeper.refresh(3)
    assert (store.loads, keeper.current.revision) == (1, 5)
    await keeper.refresh(4)
    assert store.loads == 1


async def test_many_callers_share_one_load_in_a_thread() -> None:
    store = Store()
    keeper = store.keeper()
    store.at = 2
    await asyncio.gather(*(keeper.refresh(2) for _ in range(20)))
    assert store.loads == 1
    assert threading.get_ident() not in store.threads


async def test_refresh_tells_that_the_store_is_gone() -> None:
    store = Store()
    keeper = store.keeper()
    store.fault = StoreUnavailable("gone")
    with pytest.raises(StoreUnavailable):
        await keeper.refresh(2)
    assert keeper.current.revision == 1
    store.fault, store.at = None, 2
    await keeper.refresh(2)
    assert keeper.current.revision == 2


async def test_a_look_finds_what_is_new() -> None:
    store = Store()
    keeper = store.keeper()
    assert not await keeper.look()
    store.at = 2
    assert await keeper.look()
    assert keeper.current.revision == 2


async def test_a_crowd_of_unknown_keys_is_one_look() -> None:
    store = Store()
    keeper = store.keeper()
    store.at = 2
    assert await asyncio.gather(*(keeper.look() for _ in range(50))) == [True] * 50
    assert (store.looks, store.loads) == (1, 1)


@pytest.mark.parametrize("fault", [StoreUnavailable("gone"), UserError("the key of the vault is wrong")])
async def test_a_look_never_raises(fault: Exception, caplog: pytest.LogCaptureFixture) -> None:
    store = Store()
    keeper = store.keeper()
    store.fault = fault
    with caplog.at_level(logging.WARNING):
        assert not await keeper.look()
    assert "stays in force" in caplog.text
    store.fault, store.at = None, 2
    assert await keeper.look()


async def test_one_caller_who_leaves_does_not_spoil_the_look_of_others() -> None:
    store = Store()
    keeper = store.keeper()
    store.at = 2
    stays, leaves = asyncio.create_task(keeper.look()), asyncio.create_task(keeper.look())
    await asyncio.sleep(0)
    leaves.cancel()
    assert await asyncio.wait_for(stays, 5)


@pytest.mark.parametrize("fault", [StoreUnavailable("gone"), UserError("a wrong key"), RuntimeError("a fault of ours")])
async def test_the_poll_notices_edits_and_survives_faults(monkeypatch: pytest.MonkeyPatch, fault: Exception) -> None:
    monkeypatch.setattr(snapshots, "POLL_SECONDS", 0.001)
    store = Store()
    keeper = store.keeper()
    store.fault = fault
    failed = asyncio.Event()
    loop = asyncio.get_running_loop()

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            loop.call_soon_threadsafe(failed.set)

    listener = Listener()
    snapshots.logger.addHandler(listener)
    try:
        keeper.start()
        await asyncio.wait_for(failed.wait(), 5)
        store.at, store.fault = 2, None
        await asyncio.wait_for(store.loaded_again.wait(), 5)
    finally:
        snapshots.logger.removeHandler(listener)
        await keeper.close()
    assert keeper.current.revision == 2
    await keeper.close()


async def test_a_database_that_tells_of_edits_is_heard_before_the_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "POLL_SECONDS", 3600.0)
    store = Store()
    tell: list[Callable[[], None]] = []
    keeper = SnapshotKeeper(store.load, store.revision, calls.snapshot(revision=1), tell.append)
    keeper.start()
    store.at = 2
    await asyncio.to_thread(tell[0])
    async with asyncio.timeout(5):
        while keeper.current.revision != 2:  # noqa: ASYNC110 (the keeper tells nobody when it has swapped)
            await asyncio.sleep(0.005)
    await keeper.close()
    tell[0]()  # after the end it is heard by nobody and harms nobody


async def test_what_is_read_with_a_changed_secret_is_told_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Edits that came in between are read along with the file, and the poll would never see them as new again."""
    monkeypatch.setattr(snapshots, "POLL_SECONDS", 0.001)
    secret, told = tmp_path / "secret", asyncio.Event()
    secret.write_text("one")
    store = Store()
    files = ((secret, fingerprint(secret)),)
    keeper = SnapshotKeeper(store.load, store.revision, replace(calls.snapshot(revision=1), secret_files=files))
    seen: list[int] = []

    def on_new(snapshot: Snapshot) -> None:
        seen.append(snapshot.revision)
        told.set()

    keeper.on_new = on_new
    secret.write_text("another")
    keeper.start()
    await asyncio.wait_for(told.wait(), 5)
    await keeper.close()
    assert seen == [1]
