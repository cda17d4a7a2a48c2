"""How a check says that a promise was not kept."""


class Broken(AssertionError):
    """A promise that was not kept."""


def expect(kept: bool, otherwise: str) -> None:
    """Raise Broken, with what was seen instead, unless the promise was kept."""
    if not kept:
        raise Broken(otherwise)
