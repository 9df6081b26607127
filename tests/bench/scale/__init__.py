"""Many environments on the real services, with a runtime that answers at once: `make bench-scale`."""
