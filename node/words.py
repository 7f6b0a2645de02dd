"""Numbers in what people read."""


def counted(number: int, one: str, more: str | None = None) -> str:
    """Say how many there are: 1 byte, 4,096 bytes. more: of several, if that is not `one` and s."""
    return f"{number:,} {one if number == 1 else more or one + 's'}"
