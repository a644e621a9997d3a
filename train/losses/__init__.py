"""Losses of logits against label maps. Every mean is over the pixels of all processes that train together."""

from .affinity import KernelWeights as KernelWeights
from .affinity import affinity_loss as affinity_loss
from .boundary import boundary_loss as boundary_loss
from .class_weights import CITYSCAPES_WEIGHTS as CITYSCAPES_WEIGHTS
from .class_weights import log_class_weights as log_class_weights
from .cross_entropy import cross_entropy as cross_entropy
from .cross_entropy import label_mass as label_mass
from .detail import detail_loss as detail_loss
from .detail import detail_targets as detail_targets
from .edges import edge_targets as edge_targets
from .focal import border_loss as border_loss
from .loss import Loss as Loss
from .ohem import ohem as ohem
