"""Connections to sessions of other replicas: bytes cross over core NATS (ADR 5)."""
