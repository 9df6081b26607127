"""Manifests as plain dictionaries in the API's own words, built by plain functions."""
