"""Changes that can happen to a graph: one file each."""

from .attach_functions import AttachFunctions as AttachFunctions
from .broadcast_upsample import BroadcastUpsample as BroadcastUpsample
from .canonicalize import Canonicalize as Canonicalize
from .fold_batchnorm import FoldBatchNorm as FoldBatchNorm
from .fuse_tail import FuseTail as FuseTail
from .lower_adaptive_pool import LowerAdaptivePool as LowerAdaptivePool
from .name_by_module import NameByModule as NameByModule
from .normalise_once import NormaliseOnce as NormaliseOnce
from .protocol import Pass as Pass
from .sign_before_norm import SignBeforeNorm as SignBeforeNorm
from .simplify import Simplify as Simplify
