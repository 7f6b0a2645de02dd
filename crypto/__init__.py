"""Ivor's cryptography: pure functions from bytes to bytes (SPEC 4, 5, design 3).

Nothing here reads a clock, a file or a socket, and randomness is an argument. Where a library
insists on drawing its own (`sealing.seal`, `archive.seal_bundle`, `certificate`), the docstring
says so. Read in this order:

    labels       domain-separated hashes, and ExpandWithLabel: everything else is built on these
    signing      Ed25519, the one verifier
    merkle       one root for many seals, and a path for each
    sealing      HPKE with X-Wing: a secret for one device
    schedule     from an epoch's secret to the seed of one message
    content      from that seed to a ciphertext, with a commitment that can be opened later
    archive      a large body for one device
    keyfile      a secret at rest, under a passphrase
    certificate  X.509 for TLS
    signatory    X.509 for signing documents
    fingerprint  what people compare by eye or by voice
    errors       all that the above raise

How one message is sealed, with `secret`, `kf` 32 random bytes each:

    ectx = schedule.epoch_context(encoded)
    commit = schedule.commitment(secret, ectx)
    sealed = sealing.seal(prekey, schedule.seal_info(encoded_seal), secret)
    chain = schedule.sender_chain(schedule.epoch_secret(epoch_id, secret), device)
    seed, chain = schedule.advance(chain)
    pc, ciphertext = content.seal_content(seed, pre, kf, m)
"""
