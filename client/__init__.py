"""One device: a leaf replica with keys.

The way in: `folder` (the keys on disk), `device` (an opened device), `compose` (append what its
owner says), `mailbox` (open what others said), `link` (the connection to the own node).
"""
