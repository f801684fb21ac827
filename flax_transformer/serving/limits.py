"""How much the server takes in at a time; whatever is more is refused with a message."""

from dataclasses import dataclass

from flax_transformer.config.setting_types import require_types
from flax_transformer.errors import require_positive


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one request, one client and all of them together may ask for."""

    lines: int = 256
    """Most lines of a request."""
    line_characters: int = 2000
    """Most characters of a line."""
    inspected_tokens: int = 64
    """Most tokens, end symbol included, of a sentence whose attention or search is asked for."""
    body_bytes: int = 1_000_000
    """Most bytes of a request's body."""
    waiting_lines: int = 2048
    """Most lines that wait for the model; a request beyond them is told when to come back."""
    connections: int = 512
    """Most connections at a time."""
    read_seconds: float = 10.0
    """Seconds that a client has to send the head of a request, and as many to send its body."""
    stop_seconds: float = 30.0
    """Seconds after which requests that are still open when the server is stopped are given up."""

    def __post_init__(self):
        require_types(self, "limits")
        require_positive(self, "limits", *self.__dataclass_fields__)
