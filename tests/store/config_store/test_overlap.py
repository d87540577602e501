"""Rotation with an overlap: for a while two values open the door, then one; whoever rotates again ends the overlap before."""

import pytest

from store.config_store import change, read
from store.config_store.build import load_snapshot
from store.config_store.keys import hash_key_value
from store.config_store.records import VirtualKeyRecord
from store.config_store.shapes import virtual_key_json
from store.config_store.specs import VirtualKeyPatch, VirtualKeySpec
from store.config_store.store import ConfigStore
from store.errors import Conflict, NotFound
from tests.store.config_store.conftest import START_MS, StillClock

HOUR = 3_600_000


def made(store: ConfigStore) -> tuple[str, str]:
    record = change.create_virtual_key(store, VirtualKeySpec(name="vk"))
    return record.id, record.value or ""


def opens(store: ConfigStore, value: str, now_ms: int) -> str | None:
    key = load_snapshot(store, {}).find(hash_key_value(value), now_ms)
    return key.name if key else None


def test_without_an_overlap_the_old_value_stops_at_once(store: ConfigStore) -> None:
    key_id, old = made(store)
    new = change.rotate_virtual_key(store, key_id).value or ""
    assert opens(store, old, START_MS) is None and opens(store, new, START_MS) == "vk"


def test_both_values_open_until_the_time_is_over(store: ConfigStore) -> None:
    key_id, old = made(store)
    record = change.rotate_virtual_key(store, key_id, overlap_ms=HOUR)
    new = record.value or ""
    assert record.previous_until_ms == START_MS + HOUR
    snapshot = load_snapshot(store, {})
    digests = [hash_key_value(value) for value in (old, new)]
    for at, expected in ((START_MS, [True, True]), (START_MS + HOUR - 1, [True, True]), (START_MS + HOUR, [False, True])):
        assert [snapshot.find(digest, at) is not None for digest in digests] == expected, "by time alone, without an edit"
    found = snapshot.find(digests[0], START_MS)
    assert found is snapshot.find(digests[1], START_MS), "one key with one set of caps"
    with store.database.read() as connection:
        ids = [read.virtual_key_id_by_hash(connection, digests[0], now_ms=at) for at in (START_MS, START_MS + HOUR)]
        assert ids == [key_id, None] and read.virtual_key_id_by_hash(connection, digests[0]) is None


def test_the_second_rotation_ends_the_first_overlap(store: ConfigStore) -> None:
    key_id, first = made(store)
    second = change.rotate_virtual_key(store, key_id, overlap_ms=HOUR).value or ""
    third = change.rotate_virtual_key(store, key_id, overlap_ms=HOUR).value or ""
    assert [opens(store, value, START_MS) for value in (first, second, third)] == [None, "vk", "vk"]
    change.rotate_virtual_key(store, key_id)
    assert [opens(store, value, START_MS) for value in (second, third)] == [None, None]


def test_an_overlap_can_be_ended_once(store: ConfigStore, clock: StillClock) -> None:
    key_id, old = made(store)
    change.rotate_virtual_key(store, key_id, overlap_ms=HOUR)
    change.end_overlap(store, key_id)
    assert opens(store, old, START_MS) is None
    with pytest.raises(NotFound, match="no earlier value of the virtual key 'vk' is in force"):
        change.end_overlap(store, key_id)
    change.rotate_virtual_key(store, key_id, overlap_ms=HOUR)
    clock.at_ms += HOUR
    with pytest.raises(NotFound):
        change.end_overlap(store, key_id)


def test_other_edits_leave_the_overlap(store: ConfigStore) -> None:
    key_id, old = made(store)
    change.rotate_virtual_key(store, key_id, overlap_ms=HOUR)
    change.update_virtual_key(store, "vk", VirtualKeyPatch(name="renamed", description="x"))
    assert opens(store, old, START_MS) == "renamed"


def test_a_value_in_its_overlap_belongs_to_nobody_else(store: ConfigStore) -> None:
    key_id, old = made(store)
    change.rotate_virtual_key(store, key_id, overlap_ms=HOUR)
    with pytest.raises(Conflict, match="another virtual key has this value") as caught:
        change.create_virtual_key(store, VirtualKeySpec.model_validate({"name": "thief", "value": old}))
    assert old not in str(caught.value)


def test_runs_live_on_through_a_rotation(store: ConfigStore) -> None:
    key_id, _ = made(store)
    run = change.create_run(store, key_id, None, 3600)
    change.rotate_virtual_key(store, key_id, overlap_ms=HOUR)
    change.end_overlap(store, key_id)
    assert opens(store, run.value, START_MS) == "vk"


def test_a_deleted_key_takes_its_earlier_value_with_it(store: ConfigStore) -> None:
    key_id, old = made(store)
    change.rotate_virtual_key(store, key_id, overlap_ms=HOUR)
    change.delete_virtual_key(store, key_id)
    assert opens(store, old, START_MS) is None


def test_the_end_is_shown_while_it_is_to_come() -> None:
    record = VirtualKeyRecord("id", "vk", None, "hash", "sk-bf-…1", previous_hash="before", previous_until_ms=START_MS)
    shown = [virtual_key_json(record, {}, {}, {}, {}, (), now)["previous_value_until"] for now in (START_MS - 1, START_MS)]
    assert shown == ["2026-11-18T11:06:40Z", None]
