"""Writes vectors/*.json: always the same bytes. `vectors/README.md` says what they mean.

    python -m tests.make_vectors

A large hex string is kept as it is; files are one case a line, so that a change shows as a line.
"""

import json
from collections.abc import Callable, Mapping
from typing import Final

from tests import vectors_admission as admission
from tests import vectors_answers as answer
from tests import vectors_archive as archive
from tests import vectors_blobs as blob
from tests import vectors_channel as channel
from tests import vectors_chat as chat
from tests import vectors_content as content
from tests import vectors_directory as directory
from tests import vectors_evidence as evidence
from tests import vectors_forks as fork
from tests import vectors_log as log
from tests import vectors_people as people
from tests import vectors_sync as sync
from tests import vectors_wire as wire
from tests.vectors import FOLDER, Case, keep_signatures

FILES: Final[Mapping[str, tuple[str, Callable[[], list[Case]]]]] = {
    "encoding": ("1", log.encoding),
    "entries": ("2.2", log.entries),
    "covers": ("2.4", fork.covers),
    "forks": ("2.5", fork.forks),
    "runs": ("6.4", log.runs),
    "operations": ("3.2", chat.operations),
    "membership": ("3.6", chat.membership),
    "admission": ("3.4", admission.admission),
    "redactions": ("2.6", chat.redactions),
    "schedule": ("4.3", chat.schedules),
    "content": ("4.3", content.contents),
    "grants": ("4.6", channel.grants),
    "blobs": ("4.7", blob.blobs),
    "messages": ("5.5", content.messages),
    "order": ("5.5", content.order),
    "names": ("5.1", people.names),
    "identity": ("5.2", people.identities),
    "keys": ("5.4", people.keys),
    "archives": ("5.6", archive.archives),
    "backups": ("5.6", people.backups),
    "invitations": ("5.3", people.invitations),
    "frames": ("6.2", wire.frames),
    "reconciliations": ("6.3", sync.reconciliations),
    "rings": ("6.5", sync.rings),
    "questions": ("7", wire.questions),
    "answers": ("7.1", answer.answers),
    "directories": ("7.5", directory.directories),
}


def text_of(name: str) -> str:
    """Return a whole file."""
    section, make = FILES[name]
    lines = ",\n".join(json.dumps(case, ensure_ascii=False) for case in make())
    return f'{{"spec": "{section}", "cases": [\n{lines}\n]}}\n'


def main() -> None:
    """Write every file."""
    for name in FILES:
        (FOLDER / f"{name}.json").write_text(text_of(name))
    evidence.write()
    keep_signatures()


if __name__ == "__main__":
    main()
