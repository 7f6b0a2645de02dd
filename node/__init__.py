"""One agency's always-on server: everything that waits, reads a clock or touches a disk.

`agency` and `files` (keys at rest), `config` and `logs`, `tls` (who is at the other end), then the
store, the driver that carries out the protocol's effects, and the service that runs them all.
"""
