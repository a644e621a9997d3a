"""Custom operators: one file each, and the registry."""

from .criss_cross_attention import CRISS_CROSS_ATTENTION as CRISS_CROSS_ATTENTION
from .frame_preprocess import FRAME_PREPROCESS as FRAME_PREPROCESS
from .kernel import Kernel as Kernel
from .max_unpool import MAX_POOL_INDICES as MAX_POOL_INDICES
from .max_unpool import MAX_UNPOOL as MAX_UNPOOL
from .modulated_deform_conv import MODULATED_DEFORM_CONV as MODULATED_DEFORM_CONV
from .non_local_attention import NON_LOCAL_ATTENTION as NON_LOCAL_ATTENTION
from .op import Op as Op
from .psa_mask import PSA_COLLECT as PSA_COLLECT
from .psa_mask import PSA_DISTRIBUTE as PSA_DISTRIBUTE
from .psa_mask import PSA_MASK as PSA_MASK
from .registry import OPS as OPS
from .registry import flop_formulas as flop_formulas
from .registry import translation as translation
from .scale_adaptive_conv import SCALE_ADAPTIVE_CONV as SCALE_ADAPTIVE_CONV
from .upsample_argmax import UPSAMPLE_ARGMAX as UPSAMPLE_ARGMAX
