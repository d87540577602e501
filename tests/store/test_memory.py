"""The database in memory: the same schema and words as a file, whole transactions, gone at the end."""

import threading

import pytest

from store.errors import StoreUnavailable
from store.memory import MemoryDatabase


@pytest.fixture
def memory() -> MemoryDatabase:
    database = MemoryDatabase()
    database.migrate()
    return database


def put(database: MemoryDatabase, key: str) -> None:
    with database.write() as connection:
        connection.execute("INSERT INTO config_meta (key, value) VALUES (?, 'x')", (key,))


def keys(database: MemoryDatabase) -> list[str]:
    with database.read() as connection:
        return [row[0] for row in connection.execute("SELECT key FROM config_meta ORDER BY key")]


def test_it_has_the_schema_of_a_file_and_each_is_its_own(memory: MemoryDatabase) -> None:
    put(memory, "a")
    other = MemoryDatabase()
    assert len(other.migrate()) == len(MemoryDatabase().migrate()) > 2
    assert (keys(memory), keys(other)) == (["a"], [])


def test_a_write_that_raises_leaves_nothing(memory: MemoryDatabase) -> None:
    with pytest.raises(KeyError), memory.write() as connection:
        connection.execute("INSERT INTO config_meta (key, value) VALUES ('gone', 'x')")
        raise KeyError
    put(memory, "kept")
    assert keys(memory) == ["kept"]


def test_reads_may_stand_inside_one_another_and_a_write_may_not(memory: MemoryDatabase) -> None:
    with memory.read() as outer, memory.read() as inner:
        assert outer.execute("SELECT 1") == inner.execute("SELECT 1") == [(1,)]
        with pytest.raises(RuntimeError), memory.write():
            pass
    put(memory, "afterwards")
    assert keys(memory) == ["afterwards"]


def test_threads_take_turns(memory: MemoryDatabase) -> None:
    def work(name: str) -> None:
        for number in range(50):
            put(memory, f"{name}{number:02}")
            keys(memory)

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(keys(memory)) == 200


def test_closed_is_closed(memory: MemoryDatabase) -> None:
    memory.close()
    memory.close()
    with pytest.raises(StoreUnavailable, match="closed"), memory.read():
        pass
