"""For tests of the protocol and of what is built on it: people, stories, and strategies.

    cast          users with devices and real certificates, all from their names
    story         a chat's control lane told entry by entry
    histories     hypothesis strategies for such lanes, forks and duels included
    chains        signed chains of any shape, as runs, covers and forks; nothing judges them
    conversations whole chats that a node admits, in causal order
    network       replicas in memory and sessions between them, in any interleaving
    attacker      what an attacker can read, by deduction from what they saw and hold
    interference  what a malicious node does to what passes it, and the devices it invents

Everything is a function of names and numbers: no clock, no randomness. Keys are public knowledge.
"""
