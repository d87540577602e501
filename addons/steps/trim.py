"""The output limit that fits the hold, written into the request as the provider understands it, nothing else changed."""

from addons.call import Call
from addons.providers.dialect import Edit
from addons.providers.splice import apply
from store.ledger.types import Enforcement, Granted, Unit


def trim(call: Call) -> None:
    """Lower the output limit to what is held, ask for usage where it is not given by itself, name the model upstream.

    All edits go into the body as one splice; a body nobody had to change stays as it came, compressed or not.
    """
    facts, dialect = call.facts, call.dialect
    call.output_tokens_held = call.output_tokens_bound
    if facts is None or dialect is None or call.signed:
        return
    edits: list[Edit] = []
    if call.hold is not None and call.bound is not None and not call.free:
        bound = call.strict_bound if call.strict_bound is not None and call.hold_is_strict else call.bound
        if call.hold.amount_nanos < bound.bound_nanos(call.output_tokens_bound):
            call.output_tokens_held = bound.output_tokens_for(call.hold.amount_nanos)
            call.trimmed_to = max(1, call.output_tokens_held // max(1, facts.candidates))
            edits.append(dialect.limit_edit(facts, call.trimmed_to))
        elif call.must_limit and facts.output_limit_path and _is_under_hard_cap(call.hold):
            call.trimmed_to = max(1, call.output_tokens_bound // max(1, facts.candidates))
            edits.append(dialect.limit_edit(facts, call.trimmed_to))
    if facts.stream and not facts.wants_usage:
        asked = dialect.edits(facts, ask_usage=call.family is not None and call.family.asks_usage)
        call.asked_usage = bool(asked)
        edits += asked
    if call.model and facts.model is not None and call.model != facts.model:
        call.provider_path, edit = dialect.rename_model(facts, call.provider_path, call.model)
        if edit is not None:
            edits.append(edit)
    if edits:
        call.body = apply(call.body, edits)
        _replace_body(call)


def _is_under_hard_cap(hold: Granted) -> bool:
    caps = (state.cap for state in hold.caps)
    return any(cap.unit is Unit.USD and cap.enforcement is Enforcement.HARD for cap in caps)


def _replace_body(call: Call) -> None:
    request = call.flow.request
    request.headers.pop("content-encoding", None)
    request.headers.pop("transfer-encoding", None)
    request.raw_content = call.body
    request.headers["content-length"] = str(len(call.body))
