"""Custom operators: one file each, and the registry."""

from .kernel import Kernel as Kernel
from .op import Op as Op
from .registry import OPS as OPS
from .registry import translation as translation
from .upsample_argmax import UPSAMPLE_ARGMAX as UPSAMPLE_ARGMAX
