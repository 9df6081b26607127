"""Shells that outlive whoever talks to them.

A holder is a small program inside a workspace. It owns the terminals of the workspace's shells and the last of their
output, so that a service that comes back, or another one, finds shell and output as they were. `inside/` runs in the
workspace, on any Python 3.8 or newer and its standard library; `packing` takes it there; `shells` talks to it.
"""
