"""What Orbax says when it fails, in a few words; its own messages are hundreds of lines long."""

import logging
import sys
import textwrap


def reason(error: BaseException) -> str:
    """Returns what went wrong, in one line."""
    text = str(error)
    if "No space left" in text:
        return "No space left on device"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return textwrap.shorten(text.partition("\n")[0], 200) or type(error).__name__


def _is_heard(unraisable: "sys.UnraisableHookArgs") -> bool:
    """Returns False for what the other reads and writes report once one of them has failed."""
    return str(unraisable.exc_value) != "Event loop is closed"


def _silence() -> None:
    # Errors in the background are raised as exceptions as well, so the log adds nothing.
    logging.getLogger("absl").addFilter(lambda record: "orbax" not in record.pathname)
    before = sys.unraisablehook

    def report(unraisable: "sys.UnraisableHookArgs") -> None:
        if _is_heard(unraisable):
            before(unraisable)

    sys.unraisablehook = report


_silence()
