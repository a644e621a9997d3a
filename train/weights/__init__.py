"""Checkpoints that ship with roadseg."""
