"""The database: one writer at a time between threads and processes, numbered steps, refusals in one sentence."""

import os
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import apsw
import peewee
import pytest

from store.database import Connection, Database, bump_revision, governance_revision
from store.errors import StoreUnavailable, UserError
from store.filelock import FairLock, FileLock
from store.filesystem import network_type
from store.migrations import Migration, discover, in_order
from store.models import LEDGER_MODELS
from store.sqlite import SqliteDatabase


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "config.db"


def make_table(connection: Connection) -> None:
    connection.execute("CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT UNIQUE)")


TABLE = (Migration(1, "table", make_table),)


def opened(path: Path, **options: object) -> Database:
    database = SqliteDatabase.open(path, migrations=TABLE, **options)
    database.migrate()
    return database


def pragma(database: Database, name: str) -> object:
    with database.write() as connection:
        return connection.execute(f"PRAGMA {name}")[0][0]


def test_settings_that_make_commits_durable(path: Path) -> None:
    database = opened(path)

    assert pragma(database, "journal_mode") == "wal"
    assert pragma(database, "synchronous") == 2
    assert pragma(database, "foreign_keys") == 1
    assert pragma(database, "mmap_size") == 0
    assert pragma(database, "wal_autocheckpoint") == 0
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    database.close()


def test_logs_may_be_kept_less_strictly(path: Path) -> None:
    database = opened(path, synchronous="NORMAL")

    assert pragma(database, "synchronous") == 1
    database.close()


def test_commits_and_rolls_back(path: Path) -> None:
    database = opened(path)
    with database.write() as connection:
        connection.executemany("INSERT INTO t (a, b) VALUES (?, ?)", [(1, "x"), (2, "y")])
    with pytest.raises(KeyError), database.write() as connection:
        connection.execute("INSERT INTO t (a, b) VALUES (3, 'z')")
        raise KeyError
    with database.read() as connection:
        assert connection.execute("SELECT a, b FROM t ORDER BY a") == [(1, "x"), (2, "y")]
    database.close()


def test_a_constraint_is_an_integrity_error_and_rolls_back(path: Path) -> None:
    database = opened(path)
    with pytest.raises(peewee.IntegrityError), database.write() as connection:
        connection.execute("INSERT INTO t (a, b) VALUES (1, 'x')")
        connection.execute("INSERT INTO t (a, b) VALUES (2, 'x')")
    with database.read() as connection:
        assert connection.execute("SELECT * FROM t") == []
    database.close()


def test_reads_see_one_instant_and_cannot_write(path: Path) -> None:
    database = opened(path)
    with database.read() as reader:
        assert reader.execute("SELECT count(*) FROM t") == [(0,)]
        with database.write() as writer:
            writer.execute("INSERT INTO t (a) VALUES (1)")
        assert reader.execute("SELECT count(*) FROM t") == [(0,)]
        with pytest.raises(StoreUnavailable):
            reader.execute("INSERT INTO t (a) VALUES (2)")
    with database.read() as reader:
        assert reader.execute("SELECT count(*) FROM t") == [(1,)]
    database.close()


def test_peewee_works_on_the_same_connection(path: Path) -> None:
    class T(peewee.Model):  # type: ignore[misc]
        a = peewee.IntegerField(primary_key=True)
        b = peewee.TextField(null=True)

        class Meta:
            table_name = "t"

    database = opened(path)
    with database.write() as connection:
        T.insert(a=1, b="x").execute(connection.peewee)
    with database.read() as connection:
        assert [(row.a, row.b) for row in T.select().execute(connection.peewee)] == [(1, "x")]
    database.close()


def test_a_write_inside_a_write_is_a_mistake(path: Path) -> None:
    database = opened(path)
    with pytest.raises(RuntimeError, match="inside another"), database.write(), database.write():
        pass
    with database.write() as connection:
        connection.execute("INSERT INTO t (a) VALUES (1)")
    database.close()


def test_threads_take_turns(path: Path) -> None:
    database = opened(path)
    with database.write() as connection:
        connection.execute("INSERT INTO t (a, b) VALUES (1, '0')")

    def add() -> None:
        for _ in range(25):
            with database.write() as connection:
                value = int(connection.execute("SELECT b FROM t WHERE a = 1")[0][0])
                connection.execute("UPDATE t SET b = ? WHERE a = 1", (str(value + 1),))

    threads = [threading.Thread(target=add) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with database.read() as connection:
        assert connection.execute("SELECT b FROM t") == [("150",)]
    database.close()


ADDER = """
import sys
from store.sqlite import SqliteDatabase
database = SqliteDatabase.open(sys.argv[1], migrations=())
for _ in range(40):
    with database.write() as connection:
        value = int(connection.execute("SELECT b FROM t WHERE a = 1")[0][0])
        connection.execute("UPDATE t SET b = ? WHERE a = 1", (str(value + 1),))
database.close()
"""


def test_processes_take_turns(path: Path) -> None:
    database = opened(path)
    with database.write() as connection:
        connection.execute("INSERT INTO t (a, b) VALUES (1, '0')")
    with database.write() as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS schema_steps (number INTEGER PRIMARY KEY, name, at_ms)")
    others = [subprocess.Popen([sys.executable, "-c", ADDER, str(path)]) for _ in range(3)]
    codes = [other.wait(60) for other in others]
    with database.read() as connection:
        assert (codes, connection.execute("SELECT b FROM t")) == ([0, 0, 0], [("120",)])
    database.close()


def test_a_writer_that_has_to_wait_too_long_gives_up(path: Path) -> None:
    first, second = opened(path), opened(path)
    with first.write():
        started = time.monotonic()
        with pytest.raises(StoreUnavailable, match="another process"), second.write(wait_seconds=0.1):
            pass
        assert 0.1 <= time.monotonic() - started < 2
    with second.write() as connection:
        connection.execute("INSERT INTO t (a) VALUES (1)")
    first.close()
    second.close()


def test_a_program_that_ignores_the_file_lock_is_noticed(path: Path) -> None:
    database = opened(path, foreign_wait_seconds=0.05)
    shell = apsw.Connection(str(path))
    shell.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable, match="another program"), database.write():
        pass
    shell.execute("COMMIT")
    shell.close()
    with database.write() as connection:
        connection.execute("INSERT INTO t (a) VALUES (1)")
    database.close()


def test_a_full_disk_is_an_unavailable_store_and_heals(path: Path) -> None:
    database = opened(path)
    with database.write() as connection:
        pages = connection.execute("PRAGMA page_count")[0][0]
        connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StoreUnavailable, match="disk is full"), database.write() as connection:
        connection.execute("INSERT INTO t (a, b) VALUES (1, ?)", ("x" * 100_000,))
    with database.write() as connection:
        connection.execute("PRAGMA max_page_count = 1000000")
        connection.execute("INSERT INTO t (a, b) VALUES (1, ?)", ("x" * 100_000,))
    with database.read() as connection:
        assert connection.execute("SELECT length(b) FROM t") == [(100_000,)]
    database.close()


def test_steps_are_taken_once_and_in_order(path: Path) -> None:
    taken: list[str] = []
    steps = [
        Migration(2, "second", lambda connection: taken.append("second")),
        Migration(1, "first", lambda connection: taken.append("first")),
    ]
    database = SqliteDatabase.open(path, migrations=steps)

    assert database.migrate() == ("first", "second")
    assert database.migrate() == ()
    assert taken == ["first", "second"]
    database.close()


def test_from_the_first_schema_forward_keeping_rows(path: Path) -> None:
    old = opened(path)
    with old.write() as connection:
        connection.execute("INSERT INTO t (a, b) VALUES (7, 'kept')")
    old.close()
    steps = (
        *TABLE,
        Migration(3, "more", lambda connection: connection.execute("ALTER TABLE t ADD COLUMN c DEFAULT 'new'") and None),
    )
    new = SqliteDatabase.open(path, migrations=steps)

    assert new.migrate() == ("more",)
    with new.read() as connection:
        assert connection.execute("SELECT a, b, c FROM t") == [(7, "kept", "new")]
    new.close()


def test_a_step_that_fails_leaves_nothing_behind(path: Path) -> None:
    def broken(connection: Connection) -> None:
        connection.execute("CREATE TABLE half (a)")
        raise KeyError("broken")

    database = SqliteDatabase.open(path, migrations=(*TABLE, Migration(2, "broken", broken)))
    with pytest.raises(KeyError):
        database.migrate()
    with database.read() as connection:
        assert connection.execute("SELECT name FROM sqlite_schema") == []
    database.close()


def test_a_newer_schema_is_refused(path: Path) -> None:
    newer = SqliteDatabase.open(path, migrations=(*TABLE, Migration(9, "later", lambda connection: None)))
    newer.migrate()
    newer.close()
    database = SqliteDatabase.open(path, migrations=TABLE)
    with pytest.raises(UserError, match="schema step 9, this version knows steps up to 1"):
        database.migrate()
    database.close()


def test_steps_carry_distinct_numbers() -> None:
    with pytest.raises(ValueError, match="same number"):
        in_order([Migration(1, "a", make_table), Migration(1, "b", make_table)])
    numbers = [step.number for step in discover()]
    assert numbers[0] == 1
    assert numbers == sorted(set(numbers))


def test_the_models_are_the_schema(path: Path) -> None:
    database = SqliteDatabase.open(path)
    database.migrate()
    with database.read() as connection:
        for model in LEDGER_MODELS:
            info = connection.execute(f"PRAGMA table_info({model._meta.table_name})")
            columns = {row[1]: (bool(row[3]), bool(row[5])) for row in info}
            keys = {field.column_name: field for field in model._meta.get_primary_keys()}
            declared = {field.column_name: (not field.null, field.column_name in keys) for field in model._meta.sorted_fields}
            for name, field in keys.items():  # SQLite reports the rowid alias as nullable
                if isinstance(field, peewee.AutoField):
                    columns[name] = (True, True)
            assert columns == declared, model
    database.close()


def test_the_revision_counts_edits(path: Path) -> None:
    database = SqliteDatabase.open(path)
    database.migrate()
    with database.write() as connection:
        before = governance_revision(connection)
        assert bump_revision(connection) == before + 1
        assert bump_revision(connection) == before + 2
    with database.read() as connection:
        assert governance_revision(connection) == before + 2
    database.close()


def test_read_only(path: Path) -> None:
    writer = opened(path)
    with writer.write() as connection:
        connection.execute("INSERT INTO t (a) VALUES (1)")
    reader = SqliteDatabase.open(path, read_only=True, migrations=TABLE)
    assert reader.migrate() == ()
    with reader.read() as connection:
        assert connection.execute("SELECT a FROM t") == [(1,)]
    with pytest.raises(StoreUnavailable, match="for reading only"), reader.write():
        pass
    reader.close()
    writer.close()
    with pytest.raises(UserError, match="there is no database"):
        SqliteDatabase.open(path.with_name("none.db"), read_only=True)


@pytest.mark.parametrize("content", [b"this is no database, it is a text that is long enough to look at" * 40])
def test_something_else_is_refused_in_one_sentence(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    for read_only in (False, True):
        with pytest.raises(UserError, match="cannot open the database .* not a database") as caught:
            SqliteDatabase.open(path, read_only=read_only)
        assert "\n" not in str(caught.value)
    assert path.read_bytes() == content


def test_a_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot open the database"):
        SqliteDatabase.open(tmp_path)


def test_closing_ends_it_and_copies_the_log_back(path: Path) -> None:
    database = opened(path)
    with database.write() as connection:
        connection.execute("INSERT INTO t (a) VALUES (1)")
    database.close()
    database.close()
    assert not path.with_name("config.db-wal").exists()
    with pytest.raises(StoreUnavailable, match="closed"), database.write():
        pass
    with pytest.raises(StoreUnavailable, match="closed"), database.read():
        pass


def test_the_log_is_copied_back_before_it_grows_for_ever(path: Path) -> None:
    database = opened(path)
    wal = path.with_name("config.db-wal")
    for number in range(60):
        with database.write() as connection:
            connection.execute("INSERT INTO t (a, b) VALUES (?, ?)", (number, str(number) + "x" * 200_000))
    written = 60 * 200_000
    assert wal.stat().st_size < written / 2
    database.close()


def test_a_checkpoint_on_demand(path: Path) -> None:
    database = opened(path)
    with database.write(checkpoint=False) as connection:
        connection.execute("INSERT INTO t (a, b) VALUES (1, ?)", ("x" * 5_000_000,))
    assert database.wal_pages > 1_000
    assert database.checkpoint()
    assert database.wal_pages == 0
    assert not database.checkpoint()
    database.close()


# ---- locks


def test_a_fair_lock_is_handed_over_in_order() -> None:
    lock = FairLock()
    order: list[int] = []
    lock.acquire()
    threads = []
    for number in range(5):

        def take(number: int = number) -> None:
            lock.acquire()
            order.append(number)
            lock.release()

        thread = threading.Thread(target=take)
        thread.start()
        while len(lock._waiting) <= number:
            time.sleep(0.0005)
        threads.append(thread)
    lock.release()
    for thread in threads:
        thread.join()
    assert order == [0, 1, 2, 3, 4]
    assert lock.acquire(0)
    assert not lock.acquire(0.01)
    lock.release()
    assert lock.acquire(0)


def test_a_file_lock_is_lifted_when_its_process_dies(tmp_path: Path) -> None:
    code = "import sys, time; from pathlib import Path; from store.filelock import FileLock\n"
    code += "lock = FileLock(Path(sys.argv[1])); lock.acquire(); print('locked', flush=True); time.sleep(60)"
    holder = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "lock")], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"locked\n"
    lock = FileLock(tmp_path / "lock")
    assert not lock.try_acquire()
    assert not lock.acquire(0.02)
    holder.kill()
    holder.wait()
    assert lock.acquire(5)
    holder.stdout.close()
    lock.close()
    with pytest.raises(ValueError, match="closed"):
        lock.try_acquire()


# ---- network file systems

MOUNTS = """\
22 1 259:2 / / rw,relatime shared:1 - ext4 /dev/root rw
30 22 0:26 / /home rw,relatime shared:2 - nfs4 server:/home rw,vers=4.2
31 30 259:3 / /home/local rw shared:3 - xfs /dev/sdb rw
32 22 0:27 / /mnt/with\\040space rw - cifs //server/share rw
33 22 0:28 / /mnt/s rw - fuse.sshfs host: rw
34 22 0:29 / /mnt/over rw - nfs host:/x rw
35 34 0:30 / /mnt/over rw - tmpfs tmpfs rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/var/lib", None),
        ("/home/me/.config/tollgate", "nfs4"),
        ("/home/local/data", None),
        ("/homework", None),
        ("/mnt/with space/x", "cifs"),
        ("/mnt/s", "fuse.sshfs"),
        ("/mnt/over/x", None),
    ],
)
def test_network_file_systems_are_recognised(path: str, kind: str | None) -> None:
    assert network_type(Path(path), MOUNTS) == kind


def test_a_network_file_system_is_refused_naming_the_way_out(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("store.sqlite.network_type", lambda directory: "nfs4")
    with pytest.raises(UserError, match=r"network file system \(nfs4\).*PostgreSQL"):
        SqliteDatabase.open(path)
    assert not os.path.exists(path)
