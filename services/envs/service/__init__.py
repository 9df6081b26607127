"""Use cases of environments, one file per family."""
