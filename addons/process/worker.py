"""One worker: a slim mitmproxy master with the addon on the inherited socket. Started by the supervisor, ends with it."""

import asyncio
import logging
import sys
from pathlib import Path

from addons.gateway import Gateway
from addons.inspector import InspectorFeed
from addons.process.children import (
    Told,
    adopt,
    ignore_terminal_signals,
    listen_to_supervisor,
    read_spec,
    report_ready,
    run_loop,
)
from addons.process.handover import hand_over
from addons.process.options import ChildSpec
from addons.process.role import collect_again
from addons.proxy import mitm
from addons.runtime import BODY_LOG_BYTES, Address, Runtime, limits_of, open_runtime
from store.settings import Settings

logger = logging.getLogger(__name__)

GC_THRESHOLDS = (20_000, 10, 20)
"""mitmproxy's layers and flows are cycles, hundreds of objects a call: Python's own thresholds look through them many times a call,
and through the price tables with them. What stands at the start (frozen) is not looked at again."""
UNSENT_LOOK_SECONDS = 0.05
"""Between looks whether slow clients have taken the rest of their answers."""
LAST_WORDS_SECONDS = 2.0
"""For the ends of calls that the gateway has just ended itself."""
SWITCH_INTERVAL_SECONDS = 0.0005
"""How long the event loop may keep the interpreter from the ledger's thread. Python's 5 ms would be paid at every statement of a
batch, because each of them lets go of the interpreter and has to get it back."""


async def work(spec: ChildSpec, settings: Settings) -> None:
    """Serve until told to end or to hand over; then drain: stop accepting, let calls finish, settle the rest, close."""
    app_dir = Path(spec.app_dir)
    listener_ports = (listener.port for listener in settings.gateway.listeners)
    other_ports = tuple(port for port in (spec.console_port, spec.inspect_port, spec.feed_port, *listener_ports) if port)
    address = Address(spec.host, spec.port, other_ports)
    feed = None
    if spec.feed_port:
        bodies = "none" if settings.client.disable_content_logging else BODY_LOG_BYTES
        feed = InspectorFeed(("127.0.0.1", spec.feed_port), spec.feed_token, bodies=bodies)
        feed.start()
    mitm.install()
    mitm.set_limits(limits_of(settings))
    runtime = await open_runtime(app_dir, settings, address, version=spec.version, feed=feed)
    options = mitm.make_options(confdir=app_dir / "ca", listening_on_loopback=address.on_loopback)
    master = mitm.SlimMaster(options, upstream_proxy=runtime.upstream_proxy)
    if spec.mode:
        master.options.update(mode=list(spec.mode))  # type: ignore[no-untyped-call]
    gateway = Gateway(runtime)
    master.addons.add(gateway)  # type: ignore[no-untyped-call]
    running = asyncio.get_running_loop().create_task(master.run(), name="mitmproxy master")
    # mitmproxy's own start sets up the listeners of its options, which are none: ours must come after it.
    started = asyncio.get_running_loop().create_task(gateway.started.wait())
    await asyncio.wait({running, started}, return_when=asyncio.FIRST_COMPLETED)
    await mitm.serve_sockets(master, adopt([*spec.gateway_fds, *(fd for fds in spec.listener_fds for fd in fds)]))
    collect_again(*GC_THRESHOLDS)
    told = listen_to_supervisor()
    report_ready()
    await _until_told(told, running)
    grace = spec.grace
    if told.retire.is_set() and not told.end.is_set():
        grace = await hand_over(gateway, master, grace, told)
    await drain(gateway, runtime, master, grace, told.hurry)
    master.shutdown()  # type: ignore[no-untyped-call]
    await running
    await runtime.close()


async def _until_told(told: Told, running: asyncio.Task[None]) -> None:
    """Returns when there is a reason not to go on serving."""
    loop = asyncio.get_running_loop()
    reasons = [loop.create_task(event.wait()) for event in (told.end, told.retire)]
    await asyncio.wait({running, *reasons}, return_when=asyncio.FIRST_COMPLETED)
    for reason in reasons:
        reason.cancel()


async def drain(gateway: Gateway, runtime: Runtime, master: mitm.SlimMaster, grace: float, hurry: asyncio.Event) -> None:
    """Stop accepting, let calls in flight finish within `grace` seconds or until `hurry`, then end and settle what is left."""
    runtime.draining = True
    await mitm.stop_accepting(master)
    end_by = asyncio.get_running_loop().time() + grace
    await _idle(gateway, grace, hurry)
    await _all_sent(end_by, hurry)
    runtime.grace_over = True
    for call in list(gateway.calls.values()):
        logger.warning("call %s was still running when its time was up and is ended", call.id)
        if not mitm.cancel_upstream(call.flow, "the gateway is being stopped"):
            mitm.close_client(call.flow)
    await _idle(gateway, LAST_WORDS_SECONDS, asyncio.Event())


async def _all_sent(end_by: float, hurry: asyncio.Event) -> None:
    """Let slow clients take the rest of answers that are complete here, until a moment of the loop's time."""
    loop = asyncio.get_running_loop()
    hurried = loop.create_task(hurry.wait())
    while mitm.unsent_answers() and not hurried.done() and loop.time() < end_by:
        await asyncio.wait({hurried}, timeout=UNSENT_LOOK_SECONDS)
    hurried.cancel()


async def _idle(gateway: Gateway, seconds: float, hurry: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    waits = {loop.create_task(gateway.idle.wait()), loop.create_task(hurry.wait())}
    await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()


def main() -> None:
    """Entry point of the process."""
    spec, settings = read_spec("worker")
    sys.setswitchinterval(SWITCH_INTERVAL_SECONDS)
    ignore_terminal_signals()
    run_loop(work(spec, settings))
