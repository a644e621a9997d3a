"""Generated road scenes with exact labels of all 19 Cityscapes classes: the data set that is always there.

A world (`things`) is planned from a seed (`planning`), seen through a camera (`camera`) in some light and weather
(`light`), and painted back to front (`ground`, `houses`, `greenery`, `furniture`, `vehicles`, `people`).
"""

from .dataset import Scenes as Scenes
from .dataset import scene_video as scene_video
