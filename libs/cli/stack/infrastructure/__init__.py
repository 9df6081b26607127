"""NATS, Redis and the database, each as one process specification with generated credentials."""
