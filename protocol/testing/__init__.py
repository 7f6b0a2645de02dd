"""For tests of the protocol and of what is built on it: people, stories, and strategies.

    cast        users with devices and real certificates, all from their names
    story       a chat's control lane told entry by entry
    histories   hypothesis strategies for such lanes, forks and duels included

Everything is a function of names and numbers: no clock, no randomness. Keys are public knowledge.
"""
