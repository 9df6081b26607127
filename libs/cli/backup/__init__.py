"""`devpocket backup` and `devpocket restore`."""
