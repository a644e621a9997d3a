"""Changes that can happen to a graph: one file each."""
