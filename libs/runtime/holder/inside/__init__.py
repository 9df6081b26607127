"""What runs inside the workspace: standard library only, and nothing of this project but what is in this folder."""
