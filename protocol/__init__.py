"""The protocol without I/O: bytes and `now` in, values and effects out.

The way in, in the order of SPEC.md: `codec` (one value, one encoding), `entry` and `run` (signed
chains), `operation`, `membership` and `epoch` (who may do what, and with which secret), `chat`
(admit an entry or say why not), `frame`, `effect` and `session` (what peers say to each other).
`limits` and `errors` hold for all of them.
"""
