"""Reading the past: what the replay tools of the command line and of the admin API share."""
