"""Which dialect, which plan, which free answer: everything about a request that follows from its method and path."""

import re
from urllib.parse import parse_qs, unquote

import orjson

from addons.pretend import anthropic, gemini, openai
from addons.pretend.plan import Dialect, Json, Plan, Refused
from addons.pretend.steering import Behaviour
from addons.pretend.wire import Request

_MESSAGES = {
    400: "Invalid request: the pretend provider was told to refuse it.",
    401: "Incorrect API key provided. You can find your API key in your account settings.",
    403: "Your organization does not have access to this resource.",
    404: "The model does not exist or you do not have access to it.",
    429: "Rate limit reached for requests. Limit: 3 / min. Please try again in 20s.",
    500: "The server had an error while processing your request.",
    503: "The engine is currently overloaded, please try again later.",
    529: "Overloaded",
}
_GEMINI_PATH = re.compile(r"/(?:v1|v1beta|v1alpha)/(?:models|tunedModels)/([^/:]+):(\w+)")
_CHAT = openai.ChatCompletions()
_RESPONSES = openai.Responses()
_EMBEDDINGS = openai.Embeddings()
_MESSAGES_API = anthropic.Messages()
_GEMINI = gemini.GenerateContent()
_OPENAI_PATHS: dict[str, openai.ChatCompletions | openai.Responses | openai.Embeddings] = {
    "/chat/completions": _CHAT,
    "/responses": _RESPONSES,
    "/embeddings": _EMBEDDINGS,
}


def message_of(status: int) -> str:
    """What a provider says with this error status."""
    return _MESSAGES.get(status, "The pretend provider was told to answer so.")


def plan_of(request: Request, behaviour: Behaviour, serial: str, created: int) -> Plan:
    """The answer to a billable request. Raises Refused, UnknownInstruction, BadRequest."""
    body = json_object(request.decoded_body())
    path = request.path
    match = _GEMINI_PATH.fullmatch(path)
    if match is not None:
        model = unquote(match[1])
        stream = match[2] == "streamGenerateContent"
        sse = "sse" in parse_qs(request.query).get("alt", [])
        return _GEMINI.read(serial, created, model, stream, sse, body, behaviour)
    if path == "/v1/messages":
        return _MESSAGES_API.read(serial, created, body, behaviour)
    return _OPENAI_PATHS[path.removeprefix("/v1")].read(serial, created, body, behaviour)


def dialect_of(path: str) -> Dialect:
    """In whose shapes to answer; OpenAI's for anything unknown."""
    if path.startswith("/v1/messages"):
        return _MESSAGES_API
    if path.startswith(("/v1beta", "/v1alpha", "/v1/models/")):
        return _GEMINI
    return _OPENAI_PATHS.get(path.removeprefix("/v1"), _CHAT)


def check_credential(request: Request, dialect: Dialect, behaviour: Behaviour) -> None:
    """A virtual key is nobody's credential here, and a required key is required. Raises Refused (401)."""
    key = dialect.credential(request.headers, request.query)
    if b"sk-bf-" in request.head:
        raise Refused(401, "A virtual key was sent to the provider.")
    if behaviour.require_key and key != behaviour.require_key:
        raise Refused(401, _MESSAGES[401])


def free_answer(request: Request, behaviour: Behaviour) -> bytes | None:
    """The body of an answer that costs nothing; None when the request is a billable one. Raises Refused (404, 405)."""
    path = request.path
    if request.method in ("GET", "HEAD"):
        return _get(request)
    if request.method != "POST":
        raise Refused(405, f"Method {request.method} is not allowed here.")
    if path == "/v1/messages/count_tokens":
        return anthropic.token_count(json_object(request.decoded_body()), behaviour)
    if path == "/v1/responses/input_tokens":
        tokens = openai.count_responses_input(json_object(request.decoded_body()))
        return orjson.dumps({"object": "response.input_tokens", "input_tokens": tokens})
    match = _GEMINI_PATH.fullmatch(path)
    if match is not None and match[2] == "countTokens":
        return gemini.token_count(json_object(request.decoded_body()), behaviour)
    billable = path == "/v1/messages" or path.removeprefix("/v1") in _OPENAI_PATHS
    if billable or (match is not None and match[2] in ("generateContent", "streamGenerateContent")):
        return None
    raise Refused(404, f"Invalid URL (POST {path})")


def _get(request: Request) -> bytes:
    if request.path in ("/v1/models", "/models"):
        if "anthropic-version" in request.headers:
            return anthropic.model_list()
        if "x-goog-api-key" in request.headers:
            return gemini.model_list()
        return openai.model_list()
    if request.path in ("/v1beta/models", "/v1alpha/models"):
        return gemini.model_list()
    if request.path == "/":
        return b"{}"
    raise Refused(404, f"Invalid URL ({request.method} {request.path})")


def json_object(body: bytes) -> Json:
    """A JSON object. Raises Refused (400)."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise Refused(400, "We could not parse the JSON body of your request.") from None
    if not isinstance(value, dict):
        raise Refused(400, "The JSON body of your request is not an object.")
    return value
