"""Options that many commands share, so that they are called and explained alike."""

from pathlib import Path
from typing import Annotated, Final

import typer

COUNT_MAX: Final = 10**9  # of what is asked for: the database takes no number without end

Json = Annotated[bool, typer.Option("--json", help="One JSON object a line, for scripts.")]
Folder = Annotated[
    Path,
    typer.Option("--dir", envvar="IVOR_NODE_DIR", help="The agency's folder.", show_default=False),
]
PhraseFile = Annotated[
    Path | None,
    typer.Option("--phrase-file", help="Read the 24 recovery words from this file, not typed."),
]
PassphraseFile = Annotated[
    Path | None,
    typer.Option(
        "--passphrase-file",
        envvar="IVOR_PASSPHRASE_FILE",
        help="Read the passphrase from this file instead of asking.",
    ),
]
NewPassphraseFile = Annotated[
    Path | None,
    typer.Option("--new-passphrase-file", help="Read the new one from this file, not typed."),
]
