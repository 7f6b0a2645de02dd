"""The command line: thin commands over `node` and `client` (SPEC 11).

`main` is the way in: it registers the families of commands (`operator`, …) and turns every error
into one line on stderr and an exit code. Data goes to stdout, all else to stderr; what other people
wrote passes through `text.inert`. Commands import what they need inside, so that each starts fast.
"""
