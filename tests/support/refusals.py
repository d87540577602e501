"""What every refusal must look like on the wire, in each dialect, checked field by field."""

from typing import Any

from tests.support.wire import Answer

ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
}
GEMINI_STATUSES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    402: "RESOURCE_EXHAUSTED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    504: "DEADLINE_EXCEEDED",
}
BUDGET_FIELDS = {
    "id", "name", "scope", "scope_id", "scope_name", "unit", "max_limit", "current_usage", "held", "remaining", "needed",
    "reset_duration", "calendar_aligned", "last_reset", "resets_at",
}  # fmt: skip


def check_refusal(
    answer: Answer, status: int, kind: str, dialect: str = "openai", *, transient: bool = False, bodiless: bool = False
) -> dict[str, Any]:
    """Assert status, headers and shape of a refusal; its body."""
    assert answer.status == status, answer.body[:600]
    headers = answer.headers
    assert headers["content-type"] == "application/json"
    if transient:
        assert int(headers["retry-after"]) >= 1
        assert "x-should-retry" not in headers
    else:
        assert "retry-after" not in headers
        assert headers.get("x-should-retry") == (None if kind == "upstream_unreachable" else "false")
    request_id = headers["x-tollgate-request-id"]
    assert headers["x-request-id"] == headers["request-id"] == request_id
    if bodiless:
        return {}
    body: dict[str, Any] = answer.json()
    assert body["request_id"] == request_id
    error = body["error"]
    assert body["message"] == error["message"]
    assert len(body["message"].splitlines()) == 1 and len(body["message"]) < 600
    if dialect == "anthropic":
        assert body["type"] == "error"
        assert error["code"] == kind
        assert error["type"] == ANTHROPIC_TYPES.get(status, error["type"])
    elif dialect == "gemini":
        assert error["code"] == status
        assert error["status"] == GEMINI_STATUSES.get(status, error["status"])
        assert error["details"][0]["reason"] == kind.upper()
    else:
        assert body["type"] == error["type"] == error["code"] == kind
        assert body["status_code"] == status
        assert body["is_bifrost_error"] is False
        assert error["param"] is None
    return body


def check_budget(body: dict[str, Any], **wanted: Any) -> dict[str, Any]:
    """Assert that a refusal carries its cap with every field of the contract, and `wanted` among them; the cap."""
    budget: dict[str, Any] = body["budget"]
    assert set(budget) == BUDGET_FIELDS
    assert body["exceeded"][0] == budget
    assert {name: budget[name] for name in wanted} == wanted
    assert budget["name"] in body["message"] and budget["scope_name"] in body["message"]
    return budget
