"""The figures that a test has measured, printed for whoever reads its output (`pytest -rP`)."""


def figures(what: str, **measured: object) -> None:
    """One line: `what: name=value, …`."""
    print(f"{what}: " + ", ".join(f"{name}={value}" for name, value in measured.items()))
