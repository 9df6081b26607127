"""Prometheus metrics of a service: one registry per application, passed in; nothing here is global."""
