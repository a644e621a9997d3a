"""Networks: one file each, and the registry."""

from .bisenet import BiSeNet as BiSeNet
from .fastscnn import FastSCNN as FastSCNN
from .registry import MODELS as MODELS
from .registry import build as build
