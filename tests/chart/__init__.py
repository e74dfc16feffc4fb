"""The chart and the kustomization, rendered by the real programs."""
