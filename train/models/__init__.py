"""Networks: one file each, and the registry."""
