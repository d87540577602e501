"""What mitmproxy forgets about a request: how its target was written, and the CONNECT it came through."""

import pytest
from mitmproxy.test import tflow

from addons.proxy import mitm

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
GET = b"GET /v1/models?key=x HTTP/1.1\r\nHost: gw\r\n\r\n"


async def echo(server, talk):
    while True:
        await server.note(talk)
        await talk.send(OK)


@pytest.mark.parametrize(
    ("line", "form"),
    [
        (b"GET /path HTTP/1.1", "origin"),
        (b"GET http://127.0.0.1:%d/path HTTP/1.1", "absolute"),
        (b"get HTTP://127.0.0.1:%d/path HTTP/1.1", "absolute"),
        (b"OPTIONS * HTTP/1.1", "origin"),
    ],
)
async def test_the_form_of_the_request_line_is_kept(gateway, upstream, line, form):
    server = await upstream(echo)
    gateway.recorder.upstream = ("127.0.0.1", server.port)
    wire = await gateway.wire()
    head = (line % server.port if b"%d" in line else line) + b"\r\nHost: 127.0.0.1:%d\r\n\r\n" % server.port
    answer = await wire.ask(head)
    assert (answer.status, answer.body) == (200, b"ok")
    flow = gateway.recorder.last("requestheaders")
    assert mitm.request_form(flow) == form
    assert mitm.connect_target(flow) is None


async def test_connect_is_in_authority_form(gateway, upstream):
    server = await upstream(echo)
    _, answer = await gateway.tunnel_to("127.0.0.1", server.port)
    assert answer.status == 200
    flow = gateway.recorder.last("http_connect")
    assert mitm.request_form(flow) == "authority"
    assert mitm.connect_target(flow) is None


async def test_requests_inside_connect_know_their_form_and_their_connect(gateway, upstream):
    server = await upstream(echo)
    gateway.recorder.is_intercepted = lambda host, port: True
    wire, _ = await gateway.tunnel_to("127.0.0.1", server.port)
    for path, form in ((b"/a", "origin"), (b"http://127.0.0.1:%d/b" % server.port, "absolute"), (b"/c", "origin")):
        answer = await wire.ask(b"GET %s HTTP/1.1\r\nHost: somewhere.else\r\n\r\n" % path)
        assert answer.body == b"ok"
        flow = gateway.recorder.last("requestheaders")
        assert mitm.request_form(flow) == form
        assert mitm.connect_target(flow) == ("127.0.0.1", server.port)
    # An absolute target overrules the Host header and goes on in origin form.
    assert [head.split(b" HTTP/1.1")[0] for head in server.heads] == [b"GET /a", b"GET /b", b"GET /c"]
    hosts = [head.lower().split(b"host: ")[1].split(b"\r\n")[0] for head in server.heads]
    assert hosts == [b"somewhere.else", b"127.0.0.1:%d" % server.port, b"somewhere.else"]


def test_flows_that_no_client_sent_have_a_form_too():
    flow = tflow.tflow()
    flow.request.authority = ""
    assert mitm.request_form(flow) == "origin"
    flow.is_replay = "request"
    assert mitm.request_form(flow) == "absolute"
    flow.request.method = "CONNECT"
    assert mitm.request_form(flow) == "authority"


def test_state_is_neither_shown_nor_copied():
    flow = tflow.tflow()
    before = flow.get_state()
    mitm.set_body_limit(flow, 5)
    assert flow.get_state() == before
    assert flow.metadata == {}
    assert mitm.timed_out(flow.copy()) is None
