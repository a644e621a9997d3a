"""Networks: one file each, and the registry."""

from .architecture import Architecture as Architecture
from .architecture import Sizes as Sizes
from .outputs import Outputs as Outputs
from .randomise import randomise as randomise
from .registry import MODELS as MODELS
from .registry import build as build
from .registry import require_known as require_known
