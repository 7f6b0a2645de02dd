"""`ivor demo`: three agencies and six officials on this machine, with every trouble they may meet.

Nothing in it is staged: `actors` runs the same commands that people type, each in a process of its
own, `relay` stands for the network between agencies, `story` tells what happens and checks it.
"""
