"""Backups: every service's database as of one moment, the streams up to the same moment, and what says so."""
