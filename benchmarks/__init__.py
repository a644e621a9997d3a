"""Runs that take long or show much: the demo, and studies whose results are kept under results/."""
