"""What a cluster needs for a pod, and what we need beyond that: `make bench ARGS="--only kubernetes"`."""
