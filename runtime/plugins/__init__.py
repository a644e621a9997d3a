"""Custom operators inside TensorRT: their compiled kernels as data, and the plugins that launch them."""

from .offers import ATTRIBUTE as ATTRIBUTE
from .offers import DATA_TYPES as DATA_TYPES
from .offers import NAMESPACE as NAMESPACE
from .offers import SHARED_BYTES as SHARED_BYTES
from .offers import check_shapes as check_shapes
from .offers import check_types as check_types
from .offers import data_type as data_type
from .offers import offer as offer
from .offers import offered as offered
from .package import OPTION as OPTION
from .package import Kernel as Kernel
from .package import Launch as Launch
from .package import Package as Package
from .package import TensorType as TensorType
from .package import compress as compress
from .package import package_path as package_path
from .package import read_package as read_package
from .package import write_package as write_package
