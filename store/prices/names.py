"""Our names for providers and callers' names for models, as the price data and the limits catalogue know them."""

from collections.abc import Iterator, Mapping

LONGEST_MODEL_NAME = 256
"""Names beyond this are nobody's model; they are not even looked up."""

_DATA_IDS: Mapping[str, str] = {
    "gemini": "google",
    "vertex": "google",
    "bedrock": "aws",
    "xai": "x-ai",
    "moonshot": "moonshotai",
    "voyage": "voyageai",
}
_PATH_SEGMENT = "models/"


def data_id(provider: str) -> str:
    """The price data's id of a provider; our own name where the two agree (or the data does not know it)."""
    return _DATA_IDS.get(provider, provider)


def spellings(provider: str, model: str) -> Iterator[str]:
    """The model's name as given, then without a resource path (`models/…`, `publishers/google/models/…`) or `provider/`."""
    yield model
    bare = model
    before, found, after = model.rpartition(_PATH_SEGMENT)
    if found and after and (not before or before.endswith("/")):
        bare = after
        yield bare
    for prefix in dict.fromkeys((f"{provider}/", f"{data_id(provider)}/")):
        if bare.lower().startswith(prefix):
            yield bare[len(prefix) :]
