"""What stands before there are children: stores migrated and seeded, every listening socket open."""

import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass

from addons.opening import prepare_store
from addons.process.options import ServeOptions
from addons.sockets import open_sockets
from store.clock import Ids, SystemClock
from store.config_store.bootstrap import BootstrapReport
from store.config_store.build import unusable_keys
from store.config_store.exposed import exposed_files
from store.config_store.secret_text import environ_of
from store.errors import StoreUnavailable, UserError
from store.logs.opening import open_logs_store
from store.settings import Settings


def prepare_stores(options: ServeOptions, settings: Settings) -> tuple[BootstrapReport, list[str]]:
    """Migrate the stores and apply the file where it is its turn: (what was done with it, what somebody should mend).

    Runs at every start and every reload, before children with these settings start. Raises UserError and StoreUnavailable.
    """
    clock = SystemClock()
    store, report = prepare_store(options.app_dir, settings, clock, Ids(clock), reseed=options.reseed)
    try:
        environ = environ_of(options.app_dir, os.environ)
        warnings = [*unusable_keys(store, environ), *exposed_files(settings, store, environ)]
    finally:
        store.close()
    try:
        open_logs_store(options.app_dir, settings, clock=clock).close()
    except (UserError, StoreUnavailable) as fault:
        raise UserError(f"{fault}; it holds logs and no budgets: move it away and start again") from None
    return report, warnings


def rehearse(options: ServeOptions, settings: Settings) -> BootstrapReport:
    """What a start would do with the file; nothing is done. Raises UserError and StoreUnavailable."""
    if settings.file_only:
        raise UserError("config_store.enabled is false: the file is all there is, and there is no store to compare it with")
    clock = SystemClock()
    store, report = prepare_store(options.app_dir, settings, clock, Ids(clock), reseed=options.reseed, dry_run=True)
    store.close()
    return report


@dataclass(slots=True)
class Sockets:
    """Every listening socket, opened once and inherited by the children that serve it."""

    gateway: list[socket.socket]
    listeners: list[list[socket.socket]]
    console: list[socket.socket]
    inspect: list[socket.socket]
    feed: list[socket.socket]

    def close(self) -> None:
        for group in (self.gateway, *self.listeners, self.console, self.inspect, self.feed):
            for sock in group:
                sock.close()

    def close_gateway(self) -> None:
        """The ports on which calls come in, alone."""
        for group in (self.gateway, *self.listeners):
            for sock in group:
                sock.close()


def open_all(options: ServeOptions, settings: Settings) -> Sockets:
    """Open every port. Raises UserError, naming the option that chooses another one, when one of them cannot be had."""
    opened: list[list[socket.socket]] = []

    def listen(host: str, port: int, what: str, option: str) -> list[socket.socket]:
        try:
            sockets = open_sockets(host, port)
        except OSError as fault:
            for group in opened:
                for sock in group:
                    sock.close()
            raise UserError(
                f"cannot listen on {host}:{port} for the {what}: {fault.strerror or fault}; choose another with {option}"
            ) from None
        opened.append(sockets)
        return sockets

    return Sockets(
        gateway=listen(options.host, options.port, "gateway", "--port"),
        listeners=[listen(options.host, listener.port, "listener", "gateway.listeners") for listener in settings.gateway.listeners],
        console=listen(options.console_host, options.console_port, "console", "--console-port"),
        inspect=listen("127.0.0.1", options.inspect_port, "inspector", "--inspect-port") if options.inspect else [],
        feed=listen("127.0.0.1", 0, "inspector's feed", "--no-inspect") if options.inspect else [],
    )


def port_of(sockets: Sequence[socket.socket]) -> int:
    """The port that a group of sockets shares."""
    return int(sockets[0].getsockname()[1])


def url_of(host: str, port: int) -> str:
    """The address by which a listener on `host` is reached from this machine."""
    shown = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{shown}:{port}"
