"""Data sets. None of them needs torch."""

from .camvid import open_camvid as open_camvid
from .cityscapes import open_cityscapes as open_cityscapes
from .folder import open_folder as open_folder
from .kinds import KINDS as KINDS
from .kinds import open_data as open_data
from .video import open_video as open_video
