"""Keeps the terminals of this machine's shells while the services that read them come and go.

The keeper is a process of its own that starts shells, is their parent, and holds on to their terminals. It reads
nothing: the service reads and writes a terminal itself, so a key stroke crosses no further process. What was read is
recorded in memory that the keeper holds as well (`journal`), so it outlives the service, whenever that dies.
"""
