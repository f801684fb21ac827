"""What a diagnosis says to a person."""

from dataclasses import dataclass
from typing import Literal

Severity = Literal["serious", "warning", "note"]

SEVERITIES: tuple[Severity, ...] = ("serious", "warning", "note")
"""The worst first."""


@dataclass(frozen=True)
class Finding:
    """One thing that was seen, what it means, and what to try."""

    severity: Severity
    seen: str
    meaning: str
    remedy: str = ""
    """Empty where nothing need be done."""
