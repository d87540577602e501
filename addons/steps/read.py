"""What the request body says: decoded within a bound, read by the dialect into facts."""

from addons.call import Call
from addons.providers.dialect import BadRequestBody
from addons.providers.encodings import UndecodableBody, decode_body
from addons.refusal import Refusal
from addons.services import Services


def read(call: Call, services: Services) -> None:
    """Fill `body`, `facts` and `model`. Refuses 400 `invalid_request` for a body that cannot be metered, 413 for a bomb."""
    request = call.flow.request
    raw = request.raw_content or b""
    encoding = request.headers.get("content-encoding", "").strip().lower()
    call.encoded = encoding not in ("", "identity")
    if call.dialect is None:
        call.body = raw
        return
    try:
        call.body = decode_body(raw, encoding, services.policy.max_body_bytes) if call.encoded else raw
    except UndecodableBody as fault:
        status, kind = (413, "request_too_large") if fault.too_large else (400, "invalid_request")
        call.refuse(Refusal(status, kind, str(fault)))
        return
    read_facts(call)
    if call.facts is None:
        return
    call.requested_model = call.facts.model or call.path_model or ""
    call.model = call.requested_model
    if not call.model:
        call.refuse(Refusal(400, "invalid_request", "The request names no model."))
    elif not _is_encodable(call.model):
        call.model = call.requested_model = ""
        call.refuse(Refusal(400, "invalid_request", "The request cannot be metered: the model's name is not valid Unicode."))


def _is_encodable(text: str) -> bool:
    """JSON can spell half a surrogate pair, which no store and no answer can hold."""
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


def read_facts(call: Call) -> None:
    """Fill `facts` by the call's dialect. Refuses 400 `invalid_request`."""
    if call.dialect is None:
        return
    try:
        call.facts = call.dialect.read_request(call.operation, call.provider_path, call.query, call.body)
    except BadRequestBody as fault:
        call.refuse(Refusal(400, "invalid_request", f"The request cannot be metered: {fault}"))
        return
    call.operation = call.facts.operation or call.operation
