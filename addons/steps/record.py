"""One row for logs.db, whatever became of the call."""

from addons.call import Call
from addons.outcomes import CLIENT_LEFT, COMPLETE, CUT
from addons.providers.registry import PathKind
from addons.services import Services
from store.logs.exceeded import pack
from store.logs.types import CallRow
from store.usage import Usage

CLIENT_NAME_MAX = 120
MESSAGE_MAX = 500


def record(call: Call, services: Services) -> None:
    """Hand the row to the log writer, once. Free, local and plain requests are nobody's spend and make no row."""
    if call.recorded or call.local or call.plain or (call.kind is PathKind.FREE and call.refusal is None):
        return
    call.recorded = True
    services.logs.add(row_of(call, services))


def status_of(call: Call) -> str:
    """The word for how the call went, as the logs know it."""
    if call.refusal is not None:
        return "refused"
    if call.outcome == CUT:
        return "cut"
    if call.outcome == CLIENT_LEFT:
        return "cancelled"
    response = call.flow.response
    good = response is not None and 200 <= response.status_code < 300
    return "success" if good and call.outcome == COMPLETE and not call.reading.error else "error"


def row_of(call: Call, services: Services) -> CallRow:
    """The call as a row: sums from what was settled, names from what was resolved."""
    flow, key, refusal = call.flow, call.virtual_key, call.refusal
    usage = call.reading.usage or Usage()
    now = services.clock.monotonic()
    response = flow.response
    # A buffered answer that broke on its way was replaced by an error page.
    arrived = response is not None and (call.outcome == COMPLETE or bool(response.stream))
    http_status = refusal.status if refusal else (response.status_code if response and arrived else call.fault_status)
    body_limit = services.policy.body_log_bytes
    charged = call.hold is not None and refusal is None  # a refusal after the hold voids it
    return CallRow(
        id=call.id,
        at_ms=call.at_ms,
        status=status_of(call),
        http_status=http_status,
        provider=call.provider.name if call.provider else "",
        model=call.model,
        answered_model=call.reading.model or "",
        operation=call.operation,
        stream=call.streaming or bool(call.facts and call.facts.stream),
        way_in=call.way_in.value,
        virtual_key_id=key.id if key else "",
        virtual_key_name=key.name if key else "",
        team_id=(key.team_id or "") if key else "",
        customer_id=(key.customer_id or "") if key else "",
        run_id=(key.run_id or "") if key else "",
        provider_key_id=call.provider_key.id if call.provider_key else "",
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cache_read_tokens=usage.cache_read_tokens,
        cache_write_tokens=usage.cache_write_tokens,
        reasoning_tokens=usage.reasoning_tokens,
        cost_nanos=call.cost_nanos,
        priced=call.priced and (call.price is not None or refusal is not None or bool(call.price_source)),
        estimated=call.estimated,
        held_nanos=call.hold.amount_nanos if charged and call.hold else 0,
        price_source=call.price_source,
        caps_charged=call.cap_ids if charged else (),
        refusal_type=refusal.type if refusal else "",
        refusal_cap=refusal.exceeded[0].state.cap.id if refusal and refusal.exceeded else "",
        message=(refusal.message if refusal else call.reading.error or call.note or "")[:MESSAGE_MAX],
        latency_ms=round((now - call.started) * 1000),
        first_token_ms=round((call.first_token - call.started) * 1000) if call.first_token is not None else None,
        stop_reason=call.reading.stop_reason or "",
        method=flow.request.method,
        path=call.client_path,
        client=flow.request.headers.get("user-agent", "")[:CLIENT_NAME_MAX],
        text_bytes=call.facts.text_bytes if call.facts else 0,
        exceeded=pack(refusal.exceeded) if refusal else "",
        routing_rule_id=call.rule.id if call.rule else "",
        request_body=call.body[:body_limit].decode(errors="replace") if body_limit and call.body else None,
        response_body=response_text(call, body_limit) if body_limit else None,
    )


def response_text(call: Call, limit: int) -> str | None:
    """The answer's text, at most `limit` characters: the reader's transcript, else the start of the body."""
    if call.reader is not None and call.streaming:
        return call.reader.transcript(limit)
    response = call.flow.response
    if response is None or response.raw_content is None:
        return None
    return response.raw_content[:limit].decode(errors="replace")
