"""Model lists: names and `*` patterns."""

from fnmatch import fnmatchcase

from store.config_store.snapshot import ANY


def matches_any(patterns: tuple[str, ...], name: str) -> bool:
    """Whether `name` is listed: as it is, or by a pattern in which `*` stands for any run of characters."""
    return any(
        pattern == ANY or pattern == name or ("*" in pattern and fnmatchcase(name, _only_stars(pattern))) for pattern in patterns
    )


def _only_stars(pattern: str) -> str:
    """The pattern with everything else that `fnmatch` takes for a sign turned into a letter."""
    return pattern.replace("[", "[[]").replace("?", "[?]")
