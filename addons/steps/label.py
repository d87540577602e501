"""What a viewer sees of a flow: the comment column, the mark, and metadata that `~meta` finds. Bounded, without secrets."""

from addons.call import Call, WayIn
from addons.services import Services
from store.money import format_usd, plain_usd
from store.usage import Usage

MARKS = {"refused": ":no_entry:", "cut": ":scissors:", "error": ":warning:", "cancelled": ":door:"}


def label(call: Call, services: Services, status: str) -> None:
    """Write comment, mark and metadata into the flow; give a streamed answer its bounded transcript."""
    flow = call.flow
    flow.comment = comment(call)
    flow.marked = MARKS.get(status, "")
    usage = call.reading.usage or Usage()
    meta: dict[str, str | int] = {
        "call": call.id,
        "status": status,
        "provider": call.provider.name if call.provider else "",
        "model": call.model,
        "key": call.virtual_key.name if call.virtual_key else "",
        "key_id": call.virtual_key.id if call.virtual_key else "",
        "team": (call.virtual_key.team_name or "") if call.virtual_key else "",
        "customer": (call.virtual_key.customer_name or "") if call.virtual_key else "",
        "cost_usd": plain_usd(call.cost_nanos),
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
    }
    if call.way_in is WayIn.REVERSE:
        meta["gateway_path"] = call.client_path + (f"?{call.query}" if call.query and "key=" not in call.query else "")
    if call.hold is not None:
        meta["budgets"] = ", ".join(state.cap.name for state in call.hold.caps)
    if call.refusal is not None:
        meta["refusal"] = call.refusal.type
        if call.refusal.exceeded:
            meta["budgets"] = ", ".join(e.state.cap.name for e in call.refusal.exceeded)
    flow.metadata["tollgate"] = meta
    limit = services.policy.body_log_bytes
    if limit and call.streaming and call.reader is not None and flow.response is not None:
        flow.response.data.content = call.reader.transcript(limit).encode()


def comment(call: Call) -> str:
    """`workshop-vk-1 · gpt-4o-mini · $0.000123 · 12→48 tok`, or what it was refused for."""
    parts = [call.virtual_key.name if call.virtual_key else "no key", call.model or call.operation or call.client_path]
    if call.refusal is not None:
        parts.append(f"{call.refusal.status} {call.refusal.type}")
        if call.refusal.exceeded:
            parts.append(call.refusal.exceeded[0].state.cap.name)
        return " · ".join(parts)
    usage = call.reading.usage
    parts.append(("~" if call.estimated else "") + format_usd(call.cost_nanos) if call.priced else "unpriced")
    if usage is not None:
        parts.append(f"{usage.input_tokens}→{usage.output_tokens} tok")
    return " · ".join(parts)
