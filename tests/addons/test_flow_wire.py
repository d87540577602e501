"""A flow survives the trip with everything a viewer needs and without its credentials."""

import gzip

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mitmproxy import http
from mitmproxy.flow import Error
from mitmproxy.test import tflow

from addons.flow_wire import FULL_BODY_BYTES, LENGTH_BYTES, BadFrame, body_limit, kept_body, pack, unpack
from addons.redact import redact_bytes

KEY = "sk-proj-Ab3dEf6hIj9kLm2nOp5q"


def a_flow(**metadata: object) -> http.HTTPFlow:
    flow = tflow.tflow(resp=True)
    flow.request = http.Request.make(
        "POST",
        "https://api.openai.com/v1/chat/completions?key=abc&alt=sse",
        b'{"model":"gpt-4o-mini"}',
        {"authorization": f"Bearer {KEY}", "content-type": "application/json", "x-odd": "caf\xe9"},
    )
    flow.response = http.Response.make(200, b'{"usage":{}}', {"set-cookie": "s=1", "content-type": "application/json"})
    flow.metadata = dict(metadata)
    return flow


def there_and_back(flow: http.HTTPFlow, live: bool = False, body_bytes: int = 65536, **more: object) -> http.HTTPFlow:
    frame = pack(flow, live=live, body_bytes=body_bytes, **more)  # type: ignore[arg-type]
    assert int.from_bytes(frame[:LENGTH_BYTES]) == len(frame) - LENGTH_BYTES
    copy, still_live = unpack(frame[LENGTH_BYTES:])
    assert still_live is live
    return copy


def test_everything_a_viewer_needs_arrives() -> None:
    flow = a_flow(tollgate={"call": "01a2-b3", "key": "workshop-vk-1", "team": "", "input_tokens": 12}, other=[1, "two", None])
    flow.comment = "workshop-vk-1 · gpt-4o-mini · $0.000123 · 12→48 tok"
    flow.marked = ":no_entry:"
    flow.error = Error("Client disconnected.", 17.5)
    copy = there_and_back(flow, live=True)
    assert copy.id == "01a2-b3"
    assert copy.comment == flow.comment
    assert copy.marked == ":no_entry:"
    assert copy.error is not None and (copy.error.msg, copy.error.timestamp) == ("Client disconnected.", 17.5)
    assert copy.metadata == {"call": "01a2-b3", "key": "workshop-vk-1", "input_tokens": 12, "other": [1, "two", None]}
    assert copy.timestamp_created == flow.timestamp_created
    assert not copy.live, "a copy must never be something mitmproxy could kill"
    assert copy.request.pretty_url == "https://api.openai.com/v1/chat/completions?key=[redacted]&alt=sse"
    assert dict(copy.request.headers.fields)[b"x-odd"] == dict(flow.request.headers.fields)[b"x-odd"]
    assert copy.request.content == b'{"model":"gpt-4o-mini"}'
    assert copy.response is not None and copy.response.status_code == 200
    assert copy.response.content == b'{"usage":{}}'
    assert copy.client_conn.peername == flow.client_conn.peername
    assert copy.server_conn.address == flow.server_conn.address
    assert copy.request.timestamp_start == flow.request.timestamp_start


def test_the_flow_itself_is_not_changed() -> None:
    flow = a_flow(tollgate={"call": "c-1"})
    before = flow.get_state()
    pack(flow, live=False, body_bytes=5, secrets=(KEY.encode(),))
    assert flow.get_state() == before


def test_no_credential_is_in_the_frame_or_in_the_copy() -> None:
    secret = "hunter2-hunter2"
    flow = a_flow(proxyauth=("user", secret), _internal=secret, tollgate={"call": "c-1", "message": f"echo {secret}"})
    flow.request.headers["x-innocent"] = secret
    flow.request.headers["x-innocent-2"] = KEY
    flow.request.content = f'{{"prompt":"my\\n{KEY}","other":"{secret}"}}'.encode()
    assert flow.response is not None
    flow.response.content = f"Incorrect API key provided: {secret}".encode()
    flow.comment = f"comment {secret}"
    flow.error = Error(f"error {secret}")
    frame = pack(flow, live=False, body_bytes=65536, secrets=(secret.encode(),))
    assert secret.encode() not in frame
    assert b"proxyauth" not in frame and b"_internal" not in frame and b"s=1" not in frame
    copy, _ = unpack(frame[LENGTH_BYTES:])
    for text in (repr(copy.get_state()),):
        assert secret not in text and KEY not in text
    assert copy.request.headers["authorization"] == "Bearer [redacted]"


def test_bodies_are_bounded_and_say_so() -> None:
    flow = a_flow()
    flow.request.content = b"x" * 100
    assert flow.response is not None
    flow.response.content = b"y" * 100
    copy = there_and_back(flow, body_bytes=10)
    assert copy.request.content == b"x" * 10
    assert copy.metadata["request_body"] == "first 10 of 100 bytes"
    assert copy.metadata["response_body"] == "first 10 of 100 bytes"
    nothing = there_and_back(flow, body_bytes=0)
    assert nothing.request.content == b"" and nothing.response is not None and nothing.response.content == b""
    assert nothing.metadata["request_body"] == "left out (100 bytes)"


def test_no_part_of_a_secret_is_left_at_the_cut() -> None:
    secret = b"0123456789abcdef"
    for cut in range(1, 40):
        kept, _ = kept_body(b"x" * 10 + secret + b"y" * 100, cut, (secret,))
        assert b"012" not in kept


def test_a_compressed_body_is_shown_decoded_and_searched_and_a_bomb_stays_small() -> None:
    flow = a_flow()
    flow.request.headers["content-encoding"] = "gzip"
    flow.request.data.content = gzip.compress(f"prompt {KEY}".encode())
    copy = there_and_back(flow)
    assert copy.request.content == b"prompt [redacted]"
    assert "content-encoding" not in copy.request.headers
    flow.request.data.content = gzip.compress(b"\0" * 50_000_000)
    bomb = there_and_back(flow, body_bytes=1000)
    assert len(bomb.request.raw_content or b"") == 1000
    flow.request.headers["content-encoding"] = "br"
    assert there_and_back(flow).request.raw_content == b""
    flow.request.headers["content-encoding"] = "gzip"
    flow.request.data.content = b"not gzip at all"
    assert there_and_back(flow).request.raw_content == b""


def test_a_streamed_answer_carries_its_transcript() -> None:
    flow = a_flow()
    assert flow.response is not None
    flow.response.data.content = None
    assert there_and_back(flow).response.content == b""  # type: ignore[union-attr]
    copy = there_and_back(flow, transcript="héllo")
    assert copy.response is not None and copy.response.content == "héllo".encode()
    assert copy.metadata["transcript"] == "yes"


def test_metadata_that_json_does_not_know_becomes_text() -> None:
    copy = there_and_back(a_flow(a={1}, b=b"\xff", c=object, d=(1, 2)))
    assert copy.metadata["a"] == [1]
    assert copy.metadata["d"] == [1, 2]
    assert isinstance(copy.metadata["c"], str)


@pytest.mark.parametrize(
    ("policy", "limit"), [("none", 0), ("full", FULL_BODY_BYTES), (10, 10), ("4096", 4096), (1 << 40, FULL_BODY_BYTES)]
)
def test_body_policies(policy: str | int, limit: int) -> None:
    assert body_limit(policy) == limit


@pytest.mark.parametrize("policy", ["some", -1, "-1", True, "", "1.5"])
def test_other_body_policies_are_an_error(policy: str | int) -> None:
    with pytest.raises(ValueError, match="must be full, none, or a number of bytes"):
        body_limit(policy)


@given(st.binary(max_size=400))
def test_arbitrary_bytes_are_a_bad_frame_and_nothing_else(data: bytes) -> None:
    with pytest.raises(BadFrame):
        unpack(data)


def test_every_truncation_and_bit_flip_is_a_flow_or_a_bad_frame() -> None:
    frame = pack(a_flow(tollgate={"call": "c"}), live=False, body_bytes=100)[LENGTH_BYTES:]
    for size in range(0, len(frame), 7):
        with pytest.raises(BadFrame):
            unpack(frame[:size])
    for index in range(0, len(frame), 11):
        damaged = bytearray(frame)
        damaged[index] ^= 0x15
        try:
            unpack(bytes(damaged))
        except BadFrame:
            pass


def test_another_version_is_refused() -> None:
    frame = pack(a_flow(), live=False, body_bytes=0)[LENGTH_BYTES:].replace(b'{"v":1', b'{"v":2', 1)
    with pytest.raises(BadFrame, match="version 2"):
        unpack(frame)


@given(st.binary(max_size=64).filter(lambda value: redact_bytes(value) == value))
def test_header_bytes_survive(value: bytes) -> None:
    flow = tflow.tflow()
    flow.request.headers.fields = ((b"X-Odd", value),)
    assert there_and_back(flow).request.headers.fields == ((b"X-Odd", value),)
