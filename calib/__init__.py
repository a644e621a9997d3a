"""ONNX model to ranges, and ranges to a typed ONNX model."""

from .cache import Ranges as Ranges
from .cache import format_cache as format_cache
from .cache import read_ranges as read_ranges
from .calibrate import CalibrationReport as CalibrationReport
from .calibrate import RangesDetails as RangesDetails
from .calibrate import calibrate as calibrate
from .calibrate import calibrate_each as calibrate_each
from .calibrate import files_by_method as files_by_method
from .choose import Image as Image
from .choose import ImageList as ImageList
from .choose import choose as choose
from .correct_bias import BiasReport as BiasReport
from .correct_bias import correct_bias as correct_bias
from .equalise import EqualiseReport as EqualiseReport
from .equalise import equalise as equalise
from .methods import METHODS as METHODS
from .methods import Method as Method
from .methods import parse_methods as parse_methods
from .quantize import QuantizeReport as QuantizeReport
from .quantize import quantize as quantize
from .search import Layers as Layers
from .search import SearchReport as SearchReport
from .search import search as search
from .survey import Coverage as Coverage
