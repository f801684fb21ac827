"""What a user can put right."""


class ConfigError(ValueError):
    """A setting, a path or an input that the user can put right; shown without a traceback."""


def require(condition: bool, message: str) -> None:
    """Raises `ConfigError` with `message` unless `condition` holds."""
    if not condition:
        raise ConfigError(message)


def require_positive(section: object, name: str, *fields: str) -> None:
    """Raises `ConfigError` unless all `fields` of `section`, known as `name`, are above 0."""
    for field_name in fields:
        value = getattr(section, field_name)
        require(value > 0, f"{name}.{field_name} is {value}, but must be greater than 0")


def require_not_negative(section: object, name: str, *fields: str) -> None:
    """As `require_positive`, with 0 allowed."""
    for field_name in fields:
        value = getattr(section, field_name)
        require(value >= 0, f"{name}.{field_name} is {value}, but must not be negative")
