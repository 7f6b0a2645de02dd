"""The commands of an official: `ivor join`, `chat …`, `send`, `read`, and the rest (SPEC 11)."""

import typer

from cli import (
    approving,
    chat_commands,
    device_commands,
    enrolment,
    evidence_commands,
    getting,
    keeping,
    reading,
    recovery,
    searching,
    upkeep,
    writing,
)


def register(app: typer.Typer) -> None:
    """Add the official's commands to the program, in the order in which they are met."""
    families = (
        enrolment,
        chat_commands,
        writing,
        reading,
        searching,
        getting,
        approving,
        upkeep,
        keeping,
        evidence_commands,
        device_commands,
        recovery,
    )
    for family in families:
        family.register(app)
