"""Custom operators inside TensorRT: their compiled kernels as data, and the plugins that launch them."""

from .package import Kernel as Kernel
from .package import Launch as Launch
from .package import Package as Package
from .package import TensorType as TensorType
from .package import compress as compress
from .package import package_path as package_path
from .package import read_package as read_package
from .package import write_package as write_package
