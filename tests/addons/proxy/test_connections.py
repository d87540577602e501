"""Ending one side of an exchange from outside, without losing an event."""

import asyncio

import pytest
from mitmproxy import http
from mitmproxy.test import tflow

from addons.proxy import mitm
from addons.proxy.connections import PatientLock, handler_of

GET = b"GET / HTTP/1.1\r\nHost: gw\r\n\r\n"


async def stall(server, talk):
    await server.note(talk)
    await talk.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n")
    await server.await_close(talk)


async def test_cancelling_before_headers_is_a_502(gateway, upstream):
    async def script(server, talk):
        await server.note(talk)
        server.got = True
        await server.await_close(talk)

    server = await upstream(script)
    gateway.recorder.upstream = ("127.0.0.1", server.port)
    wire = await gateway.wire()
    await wire.send(GET)
    await gateway.until(lambda: server.heads)
    assert mitm.cancel_upstream(gateway.recorder.last("request"), "because") is True
    answer = await wire.answer()
    assert (answer.status, answer.json()["type"]) == (502, "upstream_unreachable")
    assert gateway.recorder.last("error").error.msg == "because"
    await asyncio.wait_for(server.closed.wait(), 5)


async def test_cancelling_mid_stream_fires_error_with_the_reason(gateway, upstream):
    server = await upstream(stall)
    gateway.recorder.upstream = ("127.0.0.1", server.port)
    gateway.recorder.actions["responseheaders"] = lambda flow: setattr(flow.response, "stream", True)
    wire = await gateway.wire()
    await wire.send(GET)
    await wire.head()
    assert await wire.chunk() == b"hello"
    assert mitm.cancel_upstream(gateway.recorder.last("request"), "because") is True
    assert await wire.rest() == b""
    assert gateway.recorder.last("error").error.msg == "because"
    await asyncio.wait_for(server.closed.wait(), 5)


async def test_there_may_be_nothing_to_cancel(gateway):
    results = []

    def reply(flow):
        results.append(mitm.cancel_upstream(flow, "because"))
        flow.response = http.Response.make(200, b"fine")

    gateway.recorder.actions["request"] = reply
    wire = await gateway.wire()
    assert (await wire.ask(GET)).status == 200
    assert results == [False]
    assert mitm.cancel_upstream(tflow.tflow(), "because") is False
    assert mitm.close_client(tflow.tflow()) is False


async def test_an_idle_connection_to_another_server_is_not_cancelled(gateway, upstream):
    async def echo(server, talk):
        while True:
            await server.note(talk)
            await talk.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")

    async def silent(server, talk):
        await server.note(talk)
        await server.await_close(talk)

    idle, busy = await upstream(echo), await upstream(silent)
    gateway.recorder.actions["request"] = lambda flow: None
    gateway.recorder.upstream = ("127.0.0.1", idle.port)
    wire = await gateway.wire()
    await wire.ask(GET)
    handler = handler_of(gateway.recorder.last("request").client_conn)
    gateway.recorder.upstream = ("127.0.0.1", busy.port)
    await wire.send(GET)
    await gateway.until(lambda: busy.heads)
    flow = gateway.recorder.last("request")
    open_ones = list(handler.transports)
    assert len(open_ones) == 3
    from addons.proxy.flow_state import state_of

    (target,) = state_of(flow).stream().upstream_transports(open_ones)
    assert target.address == ("127.0.0.1", busy.port)
    mitm.cancel_upstream(flow, "because")
    assert (await wire.answer()).status == 502


@pytest.mark.parametrize("by", ["flow", "connection"])
async def test_closing_the_client_ends_both_sides(gateway, upstream, by):
    server = await upstream(stall)
    gateway.recorder.upstream = ("127.0.0.1", server.port)
    gateway.recorder.actions["responseheaders"] = lambda flow: setattr(flow.response, "stream", True)
    wire = await gateway.wire()
    await wire.send(GET)
    await wire.head()
    assert await wire.chunk() == b"hello"
    flow = gateway.recorder.last("request")
    assert mitm.close_client(flow if by == "flow" else flow.client_conn) is True
    assert await wire.rest() == b""
    await gateway.recorder.wait_for("error")
    await asyncio.wait_for(server.closed.wait(), 5)
    await gateway.recorder.wait_for("client_disconnected")


async def test_what_was_written_is_sent_before_the_client_is_closed(gateway):
    big = b"x" * 3_000_000

    def reply(flow):
        flow.response = http.Response.make(200, big)

    gateway.recorder.actions["request"] = reply
    gateway.recorder.actions["response"] = lambda flow: asyncio.get_running_loop().call_later(0.05, mitm.close_client, flow)
    wire = await gateway.wire()
    assert (await wire.ask(GET)).body == big
    assert await wire.rest() == b""


async def test_a_cancelled_waiter_still_gets_the_lock_first():
    lock, order = PatientLock(), []

    async def deliver():
        async with lock:
            order.append("delivered")
        await asyncio.sleep(1)
        order.append("never")

    await lock.acquire()
    task = asyncio.ensure_future(deliver())
    await asyncio.sleep(0)
    task.cancel("now")
    await asyncio.sleep(0)
    assert order == []
    lock.release()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert order == ["delivered"]
    assert not lock.locked()


async def test_an_event_is_not_lost_when_its_task_is_cancelled(gateway, upstream):
    """The upstream task waits for mitmproxy's event lock with data in hand when it is cancelled."""
    go_on = asyncio.Event()

    async def script(server, talk):
        await server.note(talk)
        await talk.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n")
        await go_on.wait()
        await talk.send(b"5\r\nagain\r\n")
        await server.await_close(talk)

    server = await upstream(script)
    gateway.recorder.upstream = ("127.0.0.1", server.port)
    gateway.recorder.actions["responseheaders"] = lambda flow: setattr(flow.response, "stream", True)
    wire = await gateway.wire()
    await wire.send(GET)
    await wire.head()
    assert await wire.chunk() == b"hello"
    flow = gateway.recorder.last("request")
    lock = handler_of(flow.client_conn)._server_event_lock
    await lock.acquire()
    go_on.set()
    await gateway.until(lambda: lock._waiters)
    mitm.cancel_upstream(flow, "because")
    await asyncio.sleep(0.01)
    lock.release()
    assert (await gateway.recorder.wait_for("error")).error.msg == "because"
    assert await wire.chunk() == b"again"
    assert await wire.rest() == b""
    assert handler_of(flow.client_conn) is None or len(handler_of(flow.client_conn).transports) == 0
    await asyncio.wait_for(server.closed.wait(), 5)


async def test_nothing_is_left_of_a_flow_after_its_connection(gateway, upstream):
    import gc
    import weakref

    async def echo(server, talk):
        while True:
            await server.note(talk)
            await talk.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")

    server = await upstream(echo)
    gateway.recorder.upstream = ("127.0.0.1", server.port)
    wire = await gateway.wire()
    await wire.ask(GET)
    flow = weakref.ref(gateway.recorder.last("request"))
    await wire.close()
    await gateway.until(lambda: not mitm.live_connections())
    gateway.recorder.hooks.clear()
    await asyncio.sleep(0.01)
    gc.collect()
    assert flow() is None
