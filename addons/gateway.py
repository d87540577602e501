"""The addon: mitmproxy's hooks → the chain. One guard: a fault before upstream is a 503, after it a log line.

Works in the project's own workers and, with `-s addons/gateway.py --set tollgate_app_dir=DIR`, in stock mitmweb and mitmdump.
"""

import sys
from pathlib import Path

if __name__ != "addons.gateway":
    # Loaded as a script by a stock tool: the packages stand in the parent directory, installed or not.
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial, wraps
from typing import Any
from urllib.parse import quote

from mitmproxy import flow as mitm_flow
from mitmproxy import http
from mitmproxy.connection import Client
from mitmproxy.proxy import mode_specs, server_hooks

from addons import chain, connect, outcomes, refuse, stock
from addons.call import Call, WayIn
from addons.complaints import Complaints
from addons.headers import append
from addons.proxy import mitm, tunnel
from addons.proxy.faults import ProtocolFault
from addons.proxy.flow_state import state_of
from addons.refusal import Refusal
from addons.runtime import Runtime
from addons.services import ConnectionFacts, Services
from addons.steps import local, meter
from addons.steps.identify import is_unknown_key
from addons.steps.reserve import remaining_nanos
from store.errors import StoreUnavailable, UserError
from store.ledger.types import CallerLeft
from store.money import plain_usd

logger = logging.getLogger(__name__)

UNAVAILABLE_RETRY_SECONDS = 5
CLIENT_DISCONNECTED = "Client disconnected."
"""mitmproxy's words for a client that went away."""
LEFT_NOTES = (CLIENT_DISCONNECTED, mitm_flow.Error.KILLED_MESSAGE)
"""The exchange ended on this side of the gateway: the provider may well go on, and bill."""
CLIENT_LEFT_STATUS = 499
"""In the logs, for a call whose client went away before there was an answer; nobody is sent this."""
_ENDED = "_tollgate_ended"
"""On a flow that broke: (call id, dialect of errors, extra fields) for the error page that follows. Not the call, which holds the
flow and its body."""
STARTING = "The gateway is still starting, or could not start; see what it printed."


def unavailable(reason: str) -> Refusal:
    """A fault of the gateway's own, closed at the door."""
    return Refusal(503, "gateway_unavailable", reason, retry_after=UNAVAILABLE_RETRY_SECONDS)


type AsyncHook = Callable[["Gateway", http.HTTPFlow], Coroutine[Any, Any, None]]


def closed(hook: AsyncHook) -> AsyncHook:
    """Guard of hooks before upstream: mitmproxy lets a request through when a hook raises, so a fault must become a 503."""

    @wraps(hook)
    async def guarded(self: "Gateway", flow: http.HTTPFlow) -> None:
        try:
            await hook(self, flow)
        except Exception as fault:
            if isinstance(fault, CallerLeft):
                refusal = unavailable("The client went away while its call stood in line; nothing was sent.")
            elif isinstance(fault, StoreUnavailable):
                self.complaints.tell("the ledger cannot be written", fault)
                refusal = unavailable("The ledger cannot be written now, so nothing may be spent; try again shortly.")
            else:
                logger.exception("fault in a hook before upstream; the call was refused")
                refusal = unavailable("The gateway had a fault of its own; nothing was sent and nothing was charged.")
            self.refuse_flow(flow, refusal)

    return guarded


def quiet(hook: Callable[["Gateway", http.HTTPFlow], None]) -> Callable[["Gateway", http.HTTPFlow], None]:
    """Guard of hooks after upstream: nothing we do may hurt the bytes that the client is owed."""

    @wraps(hook)
    def guarded(self: "Gateway", flow: http.HTTPFlow) -> None:
        try:
            hook(self, flow)
        except Exception:
            logger.exception("fault in a hook after upstream; the answer was passed on")

    return guarded


def _reverse_target(flow: http.HTTPFlow) -> tuple[str, int] | None:
    """In a stock tool's reverse mode the target names the provider; the project's own listeners are never in that mode."""
    mode = flow.client_conn.proxy_mode
    return mode.address if isinstance(mode, mode_specs.ReverseMode) else None


def _body_was_refused(flow: http.HTTPFlow) -> bool:
    """Whether the request ended because its body is too large."""
    stream = state_of(flow).stream
    layer = stream() if stream is not None else None
    return layer is not None and layer.refused


def _extra_fields(call: Call) -> dict[str, str | None]:
    return {
        "provider": call.provider.name if call.provider else None,
        "original_model_requested": call.requested_model or None,
        "request_type": call.operation or None,
    }


def _choice_headers(call: Call) -> list[tuple[bytes, bytes]]:
    """Who answered, where the gateway chose: for a bare model name on /v1, after a routing rule, or for another than the first."""
    if call.provider is None or (call.pinned and call.rule is None and not call.foreign):
        return []
    model = quote(call.model, safe="/:@._~+,=-")  # names come from callers; a header takes no other characters
    return [(b"x-tollgate-provider", call.provider.name.encode()), (b"x-tollgate-model", model.encode())]


class Gateway:
    """mitmproxy addon. `runtime` None: built from the option `tollgate_app_dir` when a stock tool starts."""

    name = "tollgate"

    runtime: Runtime
    """Set once the stores are open. Only annotated here: mitmproxy looks at every attribute of an addon when it starts."""
    services: Services

    def __init__(self, runtime: Runtime | None = None) -> None:
        self.calls: dict[str, Call] = {}
        """Calls in flight, by flow id."""
        self.idle = asyncio.Event()
        """No call is in flight."""
        self.idle.set()
        self.started = asyncio.Event()
        """mitmproxy is running and the stores are open."""
        self.is_open = False
        self.complaints = Complaints(logger, time.monotonic)
        if runtime is not None:
            self._open(runtime)

    def _open(self, runtime: Runtime) -> None:
        self.runtime, self.services = runtime, runtime.services
        self.is_open = True

    # Client connections

    def client_connected(self, client: Client) -> None:
        if self.is_open:
            self.services.connections[client.id] = ConnectionFacts(port=client.sockname[1])

    def client_disconnected(self, client: Client) -> None:
        if not self.is_open:
            return
        self.services.connections.pop(client.id, None)
        for call in list(self.calls.values()):
            if call.flow.client_conn is client and call.hold is None:
                self.services.ledger.cancel(call.id)

    async def http_connect(self, flow: http.HTTPFlow) -> None:
        """CONNECT: 407 for an unknown key (or a missing one where it is required), 403 for a denied address, else 200."""
        try:
            if self.is_open:
                refusal = await connect.decide(flow, self.runtime)
            else:
                refusal = unavailable(STARTING)
        except Exception:
            logger.exception("fault while deciding a CONNECT; it was refused")
            refusal = unavailable("The gateway had a fault of its own.")
        if refusal is not None:
            flow.response = connect.refused(refusal, self._new_id() if self.is_open else "")

    def next_layer(self, data: Any) -> None:
        if not self.is_open:
            return  # a stock tool that is still starting: every CONNECT was refused, everything else is HTTP and will be
        snapshots = self.services.snapshots
        tunnel.decide(data, partial(connect.is_intercepted, snapshots), partial(connect.sni_allowed, snapshots))

    def server_connect(self, data: server_hooks.ServerConnectionHookData) -> None:
        if self.is_open:
            self.runtime.egress.server_connect(data)
        else:
            data.server.error = "the gateway is still starting"

    def server_connected(self, data: server_hooks.ServerConnectionHookData) -> None:
        self.runtime.egress.server_connected(data)

    # One exchange

    def requestheaders(self, flow: http.HTTPFlow) -> Awaitable[None] | None:
        """Decided at once, without a task, but for a key that is not known: the store is asked before it is refused."""
        try:
            call = self._head(flow)
        except Exception:
            self._fault_at_head(flow)
            return None
        return self._look_again(call) if call is not None and is_unknown_key(call) else None

    async def _look_again(self, call: Call) -> None:
        try:
            if await self.services.snapshots.look():
                call.flow.response = None
                chain.head_again(call, self.services)
                self._decide_head(call)
        except Exception:
            self._fault_at_head(call.flow)

    def _fault_at_head(self, flow: http.HTTPFlow) -> None:
        logger.exception("fault at a request head; the call was refused")
        self.refuse_flow(flow, unavailable("The gateway had a fault of its own; nothing was sent and nothing was charged."))

    def _head(self, flow: http.HTTPFlow) -> Call | None:
        if not self.is_open:
            self.refuse_flow(flow, unavailable(STARTING))
            return None
        services = self.services
        call = Call(self._new_id(), flow, services.clock.now_ms(), services.clock.monotonic())
        self.calls[flow.id] = call
        self.idle.clear()
        if self.runtime.draining:
            self.refuse_flow(flow, unavailable("The gateway is being stopped; connect again."))
            return None
        chain.head(call, services, mitm.request_form(flow), mitm.connect_target(flow) or _reverse_target(flow))
        if call.refusal is None and call.way_in is WayIn.FORWARD and not call.plain and mitm.connect_target(flow) is None:
            self._require_key(call)
        self._decide_head(call)
        return call

    def _require_key(self, call: Call) -> None:
        """A call to a provider in absolute form has come through no CONNECT, where a required key would have been asked for."""
        if self.runtime.require_auth and call.virtual_key is None:
            call.refuse(Refusal(401, "virtual_key_required", "This proxy needs a virtual key: http://NAME:sk-bf-…@HOST:PORT."))

    def _decide_head(self, call: Call) -> None:
        """Answer a refused head, or say how the body is to be taken."""
        flow = call.flow
        if call.refusal is None and "upgrade" in flow.request.headers and not call.plain:
            self._refuse_upgrade(call)
        mitm.route(flow, self.runtime.upstream_proxy)
        if call.refusal is not None:
            self._answer_refused(call)
        elif chain.is_streamed_through(call):
            flow.request.stream = True
            call.sent = True
        elif not call.local:
            # The answer must be readable as it flows, so it must not come compressed.
            call.changes[b"accept-encoding"] = b"identity"
        if call.plain:
            self._check_plain(call)

    def _check_plain(self, call: Call) -> None:
        request = call.flow.request
        reason = self.runtime.egress.check(request.host, request.port)
        if self.runtime.unmatched == "deny":
            reason = "this gateway forwards to known providers only (gateway.forward.unmatched)"
        elif self.runtime.require_auth and not connect.may_connect(call.key_hash, self.services):
            reason = "this proxy needs a virtual key"
        elif self.runtime.upstreams(request.host, request.port):
            reason = "it is a provider's address; use the gateway's base URL for it"
        if reason is not None:
            call.flow.request.stream = False
            call.refuse(Refusal(403, "address_denied", f"The gateway does not connect to {request.host}: {reason}."))
            self._answer_refused(call)

    def _refuse_upgrade(self, call: Call) -> None:
        """WebSocket sessions on provider paths are not metered yet; 426 sends clients to HTTP at once."""
        asked = "websocket" in call.flow.request.headers.get("upgrade", "").lower()
        if asked and (call.websocket or (call.family is not None and not call.family.website)):
            call.refuse(Refusal(426, "upgrade_required", "WebSocket sessions are not metered here; use HTTP."))

    @closed
    async def request(self, flow: http.HTTPFlow) -> None:
        call = self.calls.get(flow.id)
        if call is None or flow.response is not None or call.refusal is not None or flow.request.stream:
            return
        if call.local:
            flow.response = await local.answer(call, self.services, self.runtime.local)
        else:
            await chain.body(call, self.services)
        if call.refusal is not None:
            self._answer_refused(call)
            return
        if not call.local:
            self.runtime.watchdog.sent(flow)
            call.cut_stream = partial(mitm.cut_stream, flow)
            call.sent = True

    @quiet
    def responseheaders(self, flow: http.HTTPFlow) -> None:
        call = self.calls.get(flow.id)
        if call is None or call.refusal is not None or call.local or flow.response is None:
            return
        if call.plain or call.dialect is None:
            flow.response.stream = True
            if not call.plain:
                chain.answer(call, self.services)
            return
        self.runtime.watchdog.headers(flow)
        chain.answer(call, self.services)
        if call.streaming:
            mitm.make_cuttable(flow)
        added = [(b"x-tollgate-request-id", call.id.encode())]
        if call.trimmed_to is not None:
            added.append((b"x-tollgate-trimmed", str(call.trimmed_to).encode()))
        added += _choice_headers(call)
        if call.streaming:
            added += self._remaining_header(call, None)
        append(flow.response.headers, *added)

    @quiet
    def response(self, flow: http.HTTPFlow) -> None:
        call = self._take(flow)
        if call is None:
            return
        self.runtime.watchdog.done(flow)
        if call.web_page and flow.response is not None:
            self._replace_web_page(call, flow.response)
        meter.read_whole(call)
        self._finish(call, outcomes.COMPLETE if call.refusal is None else outcomes.NOT_SENT)
        if call.hold is not None and call.refusal is None and not call.streaming and flow.response is not None:
            added = self._remaining_header(call, call.cost_nanos)
            if call.priced:
                added.append((b"x-tollgate-cost-usd", plain_usd(call.cost_nanos).encode()))
            append(flow.response.headers, *added)

    def _replace_web_page(self, call: Call, page: http.Response) -> None:
        """An error in the caller's dialect in place of HTML; a provider's error status and its Retry-After stay."""
        status = page.status_code if page.status_code >= 400 else 502
        message = (
            f"The provider's address answered with a web page (status {page.status_code}) in place of JSON; nothing was charged."
        )
        refusal = Refusal(status, "upstream_unreachable", message)
        _, headers, body = self.write_refusal(call, refusal)
        kept = [(name, value) for name, value in page.headers.fields if name.lower() == b"retry-after"]
        call.note = message
        call.flow.response = http.Response.make(status, body, http.Headers([*headers, *kept]))

    @quiet
    def error(self, flow: http.HTTPFlow) -> None:
        call = self._take(flow)
        if call is None:
            return
        self.runtime.watchdog.done(flow)
        call.note = flow.error.msg if flow.error else ""
        outcome = self._how_it_broke(call)
        if flow.response is None or (call.sent and not flow.response.stream):
            # Also a buffered answer that broke on its way was never passed on: the client gets an error page in its place.
            self._foresee_fault(call, outcome)
        self._finish(call, outcome)

    def _take(self, flow: http.HTTPFlow) -> Call | None:
        """The flow's call, which is over."""
        call = self.calls.pop(flow.id, None)
        if not self.calls:
            self.idle.set()
        return call

    def _foresee_fault(self, call: Call, outcome: str) -> None:
        """The proxy core will answer with an error page, after this call is gone: keep what `write_fault` needs, and the status."""
        if mitm.timed_out(call.flow) is not None:
            call.fault_status = 504
        elif call.note == CLIENT_DISCONNECTED:
            call.fault_status = CLIENT_LEFT_STATUS
        elif outcome == outcomes.NOT_SENT and call.refusal is None:
            if _body_was_refused(call.flow):
                call.refuse(Refusal(413, "request_too_large", call.note))
            else:
                call.fault_status = 400
        call.flow.__dict__[_ENDED] = (call.id, call.error_dialect, _extra_fields(call))

    def _how_it_broke(self, call: Call) -> str:
        flow = call.flow
        if call.refusal is not None or not call.sent:
            return outcomes.NOT_SENT
        if call.cut:
            return outcomes.CUT
        if flow.server_conn.timestamp_start is None:
            call.sent = False
            return outcomes.UPSTREAM_FAILED
        if mitm.timed_out(flow) is not None:
            return outcomes.TIMED_OUT
        if self.runtime.draining and self.runtime.grace_over:
            return outcomes.STOPPED
        return outcomes.CLIENT_LEFT if call.note in LEFT_NOTES else outcomes.UPSTREAM_FAILED

    def _finish(self, call: Call, outcome: str) -> None:
        chain.end(call, self.services, outcome)
        feed = self.runtime.feed
        if feed is not None and not call.plain:
            secrets = (call.provider_key.value,) if call.provider_key is not None else ()
            feed.offer(call.flow, secrets=secrets)

    def _remaining_header(self, call: Call, cost_nanos: int | None) -> list[tuple[bytes, bytes]]:
        left = remaining_nanos(call.hold, cost_nanos)
        return [] if left is None else [(b"x-tollgate-budget-remaining-usd", plain_usd(left).encode())]

    # Refusals

    def refuse_flow(self, flow: http.HTTPFlow, refusal: Refusal) -> None:
        """Answer a flow with a refusal whatever state its call is in; what it holds is voided when the flow ends."""
        if not self.is_open:
            # A stock tool listens before the stores are open, or they could not be opened at all.
            content = refuse.body(refusal, "openai", "", {})
            flow.request.stream = False
            flow.response = http.Response.make(refusal.status, content, {"content-type": "application/json"})
            return
        call = self.calls.get(flow.id)
        if call is None:
            now = self.services.clock.now_ms()
            call = self.calls[flow.id] = Call(self._new_id(), flow, now, self.services.clock.monotonic())
        call.refuse(refusal)
        self._answer_refused(call)

    def _answer_refused(self, call: Call) -> None:
        refusal, flow = call.refusal, call.flow
        if refusal is None:
            return
        try:
            status, headers, body = self.write_refusal(call, refusal)
        except Exception:
            # Without a response mitmproxy would send the request on to wherever its Host header says.
            logger.exception("a refusal could not be written in full; a plain one was sent")
            plain = Refusal(refusal.status, refusal.type, "The gateway refused this request.", retry_after=refusal.retry_after)
            status, headers = plain.status, refuse.headers(plain, "openai", call.id)
            body = refuse.body(plain, "openai", call.id, {})
        flow.request.stream = False
        flow.response = http.Response.make(status, body, http.Headers(headers))

    def write_refusal(self, call: Call, refusal: Refusal) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        """Status, headers and body of a refusal in the caller's dialect."""
        request = call.flow.request
        headers = refuse.headers(refusal, call.error_dialect, call.id)
        agent, originator = request.headers.get("user-agent", ""), request.headers.get("originator", "")
        if self.services.policy.codex_usage_limit and refuse.is_codex(agent, originator):
            special = refuse.for_codex(refusal, call.id)
            if special is not None:
                return special[0], headers, special[1]
        return refusal.status, headers, refuse.body(refusal, call.error_dialect, call.id, _extra_fields(call))

    def write_fault(self, fault: ProtocolFault) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        """The proxy core's own error pages (413, 502, 504 …) as refusals in the caller's dialect."""
        refusal = Refusal(fault.status, fault.code, fault.message)
        call = self.calls.get(fault.flow.id) if fault.flow is not None else None
        if call is not None:
            call.note = fault.message
            return self.write_refusal(call, refusal)
        ended = fault.flow.__dict__.get(_ENDED) if fault.flow is not None else None
        call_id, dialect, extra = ended or (self._new_id(), "openai", {})
        return refusal.status, refuse.headers(refusal, dialect, call_id), refuse.body(refusal, dialect, call_id, extra)

    def _new_id(self) -> str:
        return self.services.ids.new()

    # Stock tools

    def load(self, loader: Any) -> None:
        mitm.install()
        if not self.is_open:
            loader.add_option(stock.APP_DIR_OPTION, str, "", stock.APP_DIR_HELP)
            stock.prepare_options()

    async def running(self) -> None:
        if not self.is_open:
            try:
                self._open(await stock.open_stock_runtime())
            except UserError as fault:
                logger.error("tollgate refuses every call: %s", fault)
                return
        mitm.set_fault_writer(self.write_fault)
        self.started.set()

    async def done(self) -> None:
        """Settle what is still open; the worker has drained already, a stock tool has not."""
        for call in list(self.calls.values()):
            self.calls.pop(call.flow.id, None)
            if call.recorded or call.settled:
                continue
            try:
                self._finish(call, outcomes.STOPPED)
            except Exception:
                logger.exception("call %s could not be settled at the end; its hold is found at the next start", call.id)
        if self.is_open and self.runtime.owned_by_addon:
            await self.runtime.close()


if __name__ != "addons.gateway":
    addons = [Gateway()]
