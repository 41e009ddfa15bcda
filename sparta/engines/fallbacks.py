"""What engines of this process do otherwise than the recipe asks, because the node does not allow it. Results stay the same; speed does not."""

from sparta.errors import note

_found: dict[str, None] = {}


def fall_back(what: str) -> None:
    """Print `what`, one sentence, as a note, and keep it for the task's record, which status shows."""
    note(what)
    _found[what] = None


def fallbacks() -> list[str]:
    """What this process has fallen back to so far."""
    return list(_found)
