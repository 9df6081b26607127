"""`devpocket demo`."""
