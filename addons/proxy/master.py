"""A mitmproxy master with only what a gateway needs, and a dispatcher that does not search for hooks on every event."""

import dataclasses
import inspect
import logging
from collections.abc import Awaitable, Callable, Coroutine, Generator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from mitmproxy import addonmanager, exceptions, flow, hooks, http, master, options, optmanager
from mitmproxy.addons import core, disable_h2c, next_layer, proxyserver, tlsconfig

from addons.proxy.limits import current_limits
from addons.proxy.upstream_proxy import UpstreamProxy, UpstreamProxyLogin

logger = logging.getLogger(__name__)

IDLE_CONNECTION_SECONDS = 24 * 3600
"""When a connection on which nothing at all happens is closed, without any answer; our own timeouts come long before."""

SAFE_OPTIONS: Mapping[str, Any] = MappingProxyType(
    {
        # A path-routed request does not know its server until its hooks ran.
        "connection_strategy": "lazy",
        # With HTTP/2, ending one call's upstream connection resets its neighbours.
        "http2": False,
        "http3": False,
        # Inside an intercepted connection everything is HTTP, or a client could talk past the gateway.
        "rawtcp": False,
        # Would also cut streamed answers; request bodies are counted by this package.
        "body_size_limit": None,
        # Would let request bodies pass unseen.
        "stream_large_bodies": None,
        "store_streamed_bodies": False,
        # Both are decided before the way a request came in is known; CONNECT is decided by `tunnel.decide`.
        "allow_hosts": [],
        "ignore_hosts": [],
        "show_ignored_hosts": False,
        "validate_inbound_headers": True,
        "anticomp": False,
        "keep_host_header": False,
        # Closes without an error page; the watchdog decides instead.
        "tcp_timeout": IDLE_CONNECTION_SECONDS,
    }
)
"""The mitmproxy options this package depends on."""


def apply_safe_options(opts: options.Options, *, listening_on_loopback: bool) -> None:
    """Sets the options this package depends on, those of addons that are not loaded yet as soon as they are.

    `block_global` refuses clients with public addresses: on for a gateway on loopback, off for one meant for others.
    """
    wanted = {**SAFE_OPTIONS, "block_global": listening_on_loopback}
    longest = current_limits().first_byte_timeout_seconds + current_limits().idle_stream_timeout_seconds
    wanted["tcp_timeout"] = max(IDLE_CONNECTION_SECONDS, int(2 * longest))
    opts.update_defer(**wanted)  # type: ignore[no-untyped-call]


def make_options(
    *,
    confdir: str | Path,
    listening_on_loopback: bool = True,
    upstream_ca_file: str | Path | None = None,
    certificates: tuple[str, ...] = (),
) -> options.Options:
    """Options for a `SlimMaster` that listens nowhere yet (`serve_sockets`).

    `confdir` holds the interception CA, made on first use. `upstream_ca_file` replaces the roots upstream servers are
    checked against; `certificates` are mitmproxy's `[domain=]file.pem`, for TLS to the gateway's own port.
    """
    opts = PlainOptions(confdir=str(confdir), mode=[], certs=list(certificates))
    if upstream_ca_file is not None:
        opts.ssl_verify_upstream_trusted_ca = str(upstream_ca_file)
    apply_safe_options(opts, listening_on_loopback=listening_on_loopback)
    return opts


class QuietTlsConfig(tlsconfig.TlsConfig):
    """mitmproxy's TLS, without its look at every request for a revocation list: that parses the CA's serial each time."""

    request = None  # type: ignore[assignment]


class NoH2C(disable_h2c.DisableH2C):
    """mitmproxy's refusal of cleartext HTTP/2, asked only of requests that could mean it."""

    def request(self, f: http.HTTPFlow) -> None:
        if f.request.data.method == b"PRI" or "upgrade" in f.request.headers:
            self.process_flow(f)  # type: ignore[no-untyped-call]


_ARGUMENTS: dict[type[hooks.Hook], tuple[str, ...]] = {}


def _arguments(event: hooks.Hook) -> tuple[Any, ...]:
    """What `event.args()` says, without asking the dataclass for its fields each time."""
    names = _ARGUMENTS.get(type(event))
    if names is None:
        names = _ARGUMENTS[type(event)] = tuple(field.name for field in dataclasses.fields(event))  # type: ignore[arg-type]
    return tuple(getattr(event, name) for name in names)


class PlainOptions(options.Options):
    """mitmproxy's options, read without a deep copy: they are read a dozen times a call, and nobody changes what they get."""

    def __getattr__(self, attr: str) -> Any:
        option = self._options.get(attr)
        if option is None:
            raise AttributeError(f"No such option: {attr}")
        return option._default if option.value is optmanager.unset else option.value


class CachedAddonManager(addonmanager.AddonManager):
    """Remembers which addons have a handler for an event; mitmproxy looks at every addon for each of them.

    Same order, same treatment of errors (logged, the next addon goes on) and of AddonHalt. A handler that is put on an
    addon object after it was added is noticed only when some addon is added or removed.
    """

    def __init__(self, owner: master.Master) -> None:
        super().__init__(owner)  # type: ignore[no-untyped-call]
        self._handlers: dict[str, tuple[tuple[Callable[..., Any], ...], ...]] = {}

    def clear(self) -> None:
        super().clear()  # type: ignore[no-untyped-call]
        self._handlers.clear()

    def register(self, addon: Any) -> Any:
        try:
            return super().register(addon)  # type: ignore[no-untyped-call]
        finally:
            self._handlers.clear()

    def add(self, *addons: Any) -> None:
        try:
            super().add(*addons)  # type: ignore[no-untyped-call]
        finally:
            self._handlers.clear()

    def remove(self, addon: Any) -> None:
        try:
            super().remove(addon)  # type: ignore[no-untyped-call]
        finally:
            self._handlers.clear()

    def _handlers_of(self, event: hooks.Hook) -> tuple[tuple[Callable[..., Any], ...], ...]:
        """The handlers of an event, grouped by top-level addon: an error skips the rest of its group only."""
        found = self._handlers.get(event.name)
        if found is None:
            groups = (tuple(handler for _, handler in self._iter_hooks(addon, event)) for addon in self.chain)
            found = self._handlers[event.name] = tuple(group for group in groups if group)
        return found

    async def handle_lifecycle(self, event: hooks.Hook) -> None:
        await self.trigger_event(event)
        if self._handlers.get("update") != ():
            message = event.args()[0]
            if isinstance(message, flow.Flow):
                await self.trigger_event(hooks.UpdateHook([message]))

    async def trigger_event(self, event: hooks.Hook) -> None:
        rest = self.begin(event)
        if rest is not None:
            await rest

    def begin(self, event: hooks.Hook) -> Coroutine[Any, Any, None] | None:
        """Runs the handlers of an event as far as they go without waiting; what is left to await, or None when all is done.

        Most hooks never wait, and a task for each of them costs more than what it does.
        """
        steps = self._steps(event)
        first = next(steps, None)
        return None if first is None else self._go_on(first, steps)

    def begin_lifecycle(self, event: hooks.Hook) -> Coroutine[Any, Any, None] | None:
        """As `begin`, for `handle_lifecycle`."""
        if self._handlers.get("update") != ():
            return self.handle_lifecycle(event)
        return self.begin(event)

    def _steps(self, event: hooks.Hook) -> Generator[Awaitable[None]]:
        """Calls handler after handler; yields what one of them wants awaited, and is resumed with how that went."""
        groups = self._handlers_of(event)
        args = _arguments(event) if groups else ()
        for group in groups:
            try:
                for handler in group:
                    result = handler(*args)
                    if result is not None and inspect.isawaitable(result):
                        yield result
            except exceptions.AddonHalt:
                return
            except exceptions.OptionsError:
                raise
            except Exception as error:
                logger.exception("An addon failed in %s: %s", event.name, type(error).__name__)

    @staticmethod
    async def _go_on(first: Awaitable[None], steps: Generator[Awaitable[None]]) -> None:
        pending: Awaitable[None] | None = first
        while pending is not None:
            try:
                await pending
            except Exception as error:
                try:
                    pending = steps.throw(error)
                except StopIteration:
                    return
            else:
                pending = next(steps, None)


class SlimMaster(master.Master):
    """A master without terminal, user interface or playback: a proxy core and the addons given to it.

    It must be made inside a running loop. It listens nowhere until `serve_sockets`; the root logger's level stays as it
    is, and an error logged at start does not end the process.
    """

    def __init__(self, opts: options.Options, *, upstream_proxy: UpstreamProxy | None = None) -> None:
        super().__init__(opts)
        # It would format every log record once more and make an addon event of it.
        self._legacy_log_events.uninstall()
        # mitmproxy logs at INFO what it received from clients, keys included.
        logging.getLogger("mitmproxy").setLevel(logging.WARNING)
        self._replace_addon_manager()
        proxy = proxyserver.Proxyserver()  # type: ignore[no-untyped-call]
        parts = (core.Core(), proxy, next_layer.NextLayer(), QuietTlsConfig(), NoH2C())
        self.addons.add(*parts)  # type: ignore[no-untyped-call]
        if upstream_proxy is not None:
            self.addons.add(UpstreamProxyLogin(upstream_proxy))  # type: ignore[no-untyped-call]

    def _replace_addon_manager(self) -> None:
        """Puts our dispatcher in place of the one Master made, which must stop listening for changed options."""
        self.options.changed.disconnect(self.addons._configure_all)
        self.addons = CachedAddonManager(self)
