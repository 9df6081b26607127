"""Pure rules of the orchestrator: no framework, no I/O."""
