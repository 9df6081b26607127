"""The small process that stands between a sandbox and the services, and outlives them.

It runs with the standard library only and imports as little as it can: its start is part of "create to running".
"""
