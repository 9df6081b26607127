"""What accounts are and what may happen to them. Pure."""
