"""What generated requests need to get anywhere: callers who own something."""
