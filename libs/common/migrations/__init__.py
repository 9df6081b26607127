"""What state a service's database is in: which migrations have run, and whether a restore is under way."""
