"""ONNX model to ranges, and ranges to a typed ONNX model. Names that need torch are imported when first used."""

from typing import TYPE_CHECKING, Any

from roadseg.runtime import require

from .cache import Ranges as Ranges
from .cache import format_cache as format_cache
from .cache import read_ranges as read_ranges
from .calibrate import CalibrationReport as CalibrationReport
from .calibrate import RangesDetails as RangesDetails
from .calibrate import calibrate as calibrate
from .calibrate import calibrate_each as calibrate_each
from .calibrate import files_by_method as files_by_method
from .check_ranges import RangesCheck as RangesCheck
from .check_ranges import check_ranges as check_ranges
from .choose import Image as Image
from .choose import ImageList as ImageList
from .choose import choose as choose
from .choose_ranges import ChoiceReport as ChoiceReport
from .choose_ranges import ChosenDetails as ChosenDetails
from .choose_ranges import choose_ranges as choose_ranges
from .correct_bias import BiasReport as BiasReport
from .correct_bias import correct_bias as correct_bias
from .cost import estimate_ms as estimate_ms
from .equalise import EqualiseReport as EqualiseReport
from .equalise import equalise as equalise
from .equalise import is_equalised as is_equalised
from .gpus import GPUS as GPUS
from .gpus import Gpu as Gpu
from .gpus import find_gpu as find_gpu
from .import_ranges import ImportDetails as ImportDetails
from .import_ranges import ImportReport as ImportReport
from .import_ranges import import_ranges as import_ranges
from .lint import Finding as Finding
from .lint import LintReport as LintReport
from .lint import lint as lint
from .methods import METHODS as METHODS
from .methods import Method as Method
from .methods import parse_methods as parse_methods
from .overflow import Extreme as Extreme
from .overflow import OverflowReport as OverflowReport
from .overflow import overflow as overflow
from .quantize import QuantizeReport as QuantizeReport
from .quantize import quantize as quantize
from .rest import Rest as Rest
from .round_weights import LayerRounding as LayerRounding
from .round_weights import RoundingReport as RoundingReport
from .round_weights import round_weights as round_weights
from .search import Layers as Layers
from .search import SearchReport as SearchReport
from .search import search as search
from .sensitivity import worst_parts as worst_parts
from .survey import Coverage as Coverage
from .trial import Point as Point
from .trial import frontier as frontier
from .verdict import Candidate as Candidate
from .verdict import Verdict as Verdict
from .verdict import judge as judge

if TYPE_CHECKING:
    from .teacher import Views as Views
    from .tune import FinetuneReport as FinetuneReport
    from .tune import TunedDetails as TunedDetails
    from .tune import Tuning as Tuning
    from .tune import finetune as finetune

HOMES = {"Views": "teacher"} | dict.fromkeys(("FinetuneReport", "TunedDetails", "Tuning", "finetune"), "tune")
"""Module of each name that needs torch, so that everything else works without."""


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(require(f"{__name__}.{HOMES[name]}", name), name)
