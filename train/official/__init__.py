"""Checkpoints that the networks' authors published: one file per repository."""

from .importing import SOURCES as SOURCES
from .importing import Imported as Imported
from .importing import explain as explain
from .importing import import_checkpoint as import_checkpoint
from .importing import load_translated as load_translated
from .importing import read_official as read_official
from .importing import spec_of as spec_of
from .source import IMAGENET as IMAGENET
from .source import Preprocessing as Preprocessing
from .source import Source as Source
from .translate import Translation as Translation
from .translate import translate as translate
