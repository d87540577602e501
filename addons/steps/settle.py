"""What the call really cost, posted once: from the provider's report, or estimated by a named rule where there is none."""

import logging
from dataclasses import replace

from addons.call import Call, State
from addons.outcomes import UPSTREAM_FAILED
from addons.providers.dialect import Reader
from addons.services import Services
from store.ledger.types import Settlement
from store.prices.cost import cost_nanos, reading_cost
from store.usage import Reading, Usage

logger = logging.getLogger(__name__)

BYTES_PER_TOKEN_FEW = 3
"""Output of a broken stream is charged at one token for so few bytes: dearer than English and code really are."""


def settle(call: Call, services: Services, outcome: str) -> None:
    """Post or void the hold. Idempotent; `outcome` is a short word on how the exchange ended.

    * never sent (refused upstream connection, a fault of ours before sending): everything is voided;
    * a status other than 2xx: nothing is charged, the request counts;
    * the provider reported its final usage: exactly that;
    * a broken, cut or silent answer: input as reported, else as estimated; output as reported or by the bytes seen, whichever
      is more;
    * the provider failed before it answered, or a web page came in place of an answer: nothing is charged, as for a 5xx;
    * a buffered answer that the client abandoned or that broke on its way: the provider has most likely made and billed it,
      so its usual output is charged; a stream stops when it loses its reader, so only what was seen of it is.
    """
    if call.settled:
        return
    call.settled = True
    call.outcome = outcome
    if call.hold is None:
        return
    if not call.sent:
        services.ledger.settle_soon(Settlement(call.id, 0, 0, sent=False, note=outcome))
        return
    try:
        usage = _charge(call, services, outcome)
    except Exception:
        # Whatever is wrong with an answer, what was held must not stay held for ever.
        logger.exception("call %s could not be priced; its hold is charged", call.id)
        usage, call.estimated, call.cost_nanos = Usage(), True, call.hold.amount_nanos
    call.state = State.SETTLED
    services.ledger.settle_soon(
        Settlement(
            call_id=call.id,
            cost_nanos=call.cost_nanos,
            tokens=usage.input_tokens + usage.output_tokens,
            sent=True,
            estimated=call.estimated,
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            model=call.reading.model or "",
            price_source=call.price_source,
            note=outcome,
        )
    )
    _learn(call, services, usage)


def _charge(call: Call, services: Services, outcome: str) -> Usage:
    response = call.flow.response
    if response is not None and not 200 <= response.status_code < 300:
        return Usage()
    if call.web_page or (response is None and outcome == UPSTREAM_FAILED):
        return Usage()
    reader: Reader | None = call.reader
    if reader is not None:
        call.reading = reader.reading()
    reading = call.reading
    # Not even an answer that ended properly counts without: Anthropic's first event reports one output token, its last the sum, and
    # an error may have taken the place of the last.
    if reading.usage is None or not reading.usage_is_final:
        call.estimated = True
        reading = _estimated(call, reading)
        call.reading = reading
    usage = reading.usage or Usage()
    call.cost_nanos, call.price_source = _price(call, services, reading, usage)
    return usage


def _price(call: Call, services: Services, reading: Reading, usage: Usage) -> tuple[int, str]:
    """(cost, source). Where some of it has no known price the whole hold is charged: dearer than free by accident."""
    if call.assumed_price and call.price is not None:
        return cost_nanos(call.price, usage), call.price.source
    facts = call.facts
    cost = reading_cost(
        services.book,
        call.price_provider,
        call.model,
        reading,
        call.at_ms,
        service_tier=facts.service_tier if facts else None,
        speed=facts.speed if facts else None,
        region=call.region,
        patch_of=call.patch_of,
    )
    if cost.cost_nanos is not None:
        return cost.cost_nanos, cost.source
    if call.price is None:
        call.priced = False
        return 0, ""
    call.estimated = True
    return call.hold.amount_nanos if call.hold else 0, call.price.source


def _estimated(call: Call, reading: Reading) -> Reading:
    """A reading completed by estimates, for an answer whose final usage never came."""
    seen = reading.usage or Usage()
    from_bytes = -(-reading.output_bytes // BYTES_PER_TOKEN_FEW)
    output = max(seen.output_tokens, reading.output_events, from_bytes)
    if not call.cut and call.output_tokens_held:
        output = max(seen.output_tokens, reading.output_events, min(output, call.output_tokens_held))
    if call.reader_failed:
        # Nobody knows what it said: the whole hold is dearer than free by accident.
        output = max(output, call.output_tokens_held)
    if call.signed or (call.facts is not None and call.facts.deferred):
        # Usage could not be asked for, or comes in another exchange: what was held is the only bound there is.
        output = max(output, call.output_tokens_held)
    if not call.streaming and call.facts is not None and not call.facts.stream and call.facts.has_output:
        output = max(output, min(call.output_typical, call.output_tokens_held))
    usage = replace(seen, input_tokens=seen.input_tokens or call.input_tokens_estimate, output_tokens=output)
    return replace(reading, usage=usage)


def _learn(call: Call, services: Services, usage: Usage) -> None:
    """Only exact reports teach; media and unseen input would spoil the bytes-to-tokens ratio."""
    facts = call.facts
    if call.reading.answer_id and not call.estimated:
        services.answers.remember(call.reading.answer_id, usage.input_tokens + usage.output_tokens)
    if call.estimated or facts is None or call.provider is None or not usage.input_tokens:
        return
    clean = not (facts.media or facts.unseen_input or facts.server_tools)
    services.learned.observe(
        call.provider.name,
        call.model,
        call.virtual_key.id if call.virtual_key else "",
        facts.text_bytes if clean else 0,
        max(0, usage.input_tokens - facts.overhead_tokens),
        usage.output_tokens,
    )
