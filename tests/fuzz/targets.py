"""All targets by name; each module that has some keeps them in TARGETS."""

from collections.abc import Mapping
from typing import Final

from tests.fuzz import blobs, control, evidence, files, names, records, screen, sessions, wire
from tests.fuzz.target import Target

TARGETS: Final[Mapping[str, Target]] = {
    **wire.TARGETS,
    **records.TARGETS,
    **evidence.TARGETS,
    **blobs.TARGETS,
    **names.TARGETS,
    **files.TARGETS,
    **screen.TARGETS,
    **control.TARGETS,
    **sessions.TARGETS,
}
