"""Where the program `ivor` begins. It loads nothing slow, so that it can be interrupted quietly."""

import sys
from typing import Final

INTERRUPTED: Final = 130


def run() -> None:
    """Run the program and end the process; the entry point."""
    try:
        from cli import main

        main.run()
    except KeyboardInterrupt:  # while the rest was loaded, or came to its end
        sys.exit(INTERRUPTED)
