"""What can answer for a model: one class per library, one protocol."""

from .protocol import Backend as Backend
