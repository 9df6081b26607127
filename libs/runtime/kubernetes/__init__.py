"""The kubernetes driver: workspaces are pods. One `KubernetesRuntime` speaks to one cluster."""
