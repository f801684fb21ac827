"""What ends a command with one message and no traceback; all else that is raised is a defect."""


class FlaxTransformerError(Exception):
    """The base of the errors below; the message names the thing, its value and the remedy."""


class UserError(FlaxTransformerError, ValueError):
    """A setting, a path or an input is wrong, and the user can correct it."""


class DivergedError(FlaxTransformerError):
    """Training has made the loss, the gradient or the parameters infinite or not a number."""


class CheckpointError(FlaxTransformerError):
    """Checkpoints cannot be written, or all that there are have been damaged."""


class LostProcessError(FlaxTransformerError):
    """Another process of the run has ended, or cannot be reached."""


def require(condition: bool, message: str) -> None:
    """Raises `UserError` with `message` unless `condition` holds."""
    if not condition:
        raise UserError(message)


def require_positive(section: object, name: str, *fields: str) -> None:
    """Raises `UserError` unless all `fields` of `section`, known as `name`, are above 0."""
    for field_name in fields:
        value = getattr(section, field_name)
        require(value > 0, f"{name}.{field_name} is {value}, but must be greater than 0")


def require_not_negative(section: object, name: str, *fields: str) -> None:
    """As `require_positive`, with 0 allowed."""
    for field_name in fields:
        value = getattr(section, field_name)
        require(value >= 0, f"{name}.{field_name} is {value}, but must not be negative")
