"""The addon inside stock mitmweb and mitmdump: it opens the stores by itself and sets the options it depends on."""

import asyncio
import os
from pathlib import Path

from mitmproxy import ctx

from addons.opening import prepare_store
from addons.proxy import mitm
from addons.runtime import Address, Runtime, limits_of, open_runtime
from store.clock import Ids, SystemClock
from store.config_store.secret_text import environ_of
from store.errors import UserError
from store.settings import Settings, load_settings
from store.version import VERSION

APP_DIR_OPTION = "tollgate_app_dir"
APP_DIR_HELP = "Tollgate's app directory: config.json, stores and CA. Default: TOLLGATE_APP_DIR."


def prepare_options() -> None:
    """What must stand before the first connection: lazy upstream connections, HTTP/1.1, loopback unless told otherwise."""
    if not ctx.options.listen_host:
        ctx.options.update(listen_host="127.0.0.1")  # type: ignore[no-untyped-call]
    mitm.apply_safe_options(ctx.options, listening_on_loopback=Address(ctx.options.listen_host).on_loopback)


def _prepare() -> tuple[Path, Settings]:
    """The app directory with its stores migrated and seeded, and its settings. Raises UserError."""
    named = getattr(ctx.options, APP_DIR_OPTION) or os.environ.get("TOLLGATE_APP_DIR", "")
    if not named:
        raise UserError(f"say where Tollgate's app directory is: --set {APP_DIR_OPTION}=DIR")
    app_dir = Path(named).expanduser().resolve()
    app_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    config = app_dir / "config.json"
    settings = load_settings(config if config.is_file() else None, environ_of(app_dir, os.environ))
    clock = SystemClock()
    store, report = prepare_store(app_dir, settings, clock, Ids(clock))
    store.close()
    if report.default_key_value is not None:
        print(f"tollgate: made the virtual key 'default': {report.default_key_value}", flush=True)
    return app_dir, settings


async def open_stock_runtime() -> Runtime:
    """A runtime for the running stock tool. Raises UserError."""
    app_dir, settings = await asyncio.to_thread(_prepare)
    ctx.options.update(confdir=str(app_dir / "ca"))  # type: ignore[no-untyped-call]
    mitm.set_limits(limits_of(settings))
    address = Address(ctx.options.listen_host or "127.0.0.1", ctx.options.listen_port or 8080)
    runtime = await open_runtime(app_dir, settings, address, version=VERSION, watched=True)
    runtime.owned_by_addon = True
    await mitm.listen_again(ctx.master)
    return runtime
