"""Builds a backbone: a network of `transformers` or another family, and the class that wraps it."""

import inspect
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from crossray.errors import UserError
from crossray.models.parts.backbone import (
    Backbone,
    BackboneConfig,
    BackboneReportModel,
    join_views,
    joined_cells,
    of_views,
    square_cells,
)
from crossray.models.parts.backbone_kinds import (
    FeatureMapBackbone,
    PatchBackbone,
    ResNetBackbone,
    TokenBackbone,
    blank,
    evaluated,
    idle_parameters,
    natural_size,
)
from crossray.models.parts.networks import build_network, describe_network, family_of, load_network

__all__ = [
    "Backbone", "BackboneConfig", "BackboneReportModel", "FeatureMapBackbone", "PatchBackbone", "ResNetBackbone",
    "TokenBackbone", "build_backbone", "idle_parameters", "join_views", "joined_cells", "of_views", "square_cells",
]  # fmt: skip

#: Networks of `transformers` whose sizes are known without running them.
_KINDS: dict[str, type[Backbone]] = {"resnet": ResNetBackbone, "vit": PatchBackbone, "dinov2": PatchBackbone}


def build_backbone(config: BackboneConfig) -> Backbone:
    """Build the backbone that `config` names: with its weights, or with random ones if `architecture` is set.

    The `config` of the result contains the architecture. Systems keep it, so a saved folder needs neither the hub nor
    the folder with the original weights.

    Raises:
        UserError: the name, the folder or its weights are invalid.
    """
    network: Any
    if config.architecture is None:
        network = load_network(config.name)
    else:
        network = build_network(config.architecture, config.name)
    described = replace(config, architecture=describe_network(network))
    model_type = network.config.model_type
    kind: Any = family_of(model_type) or _KINDS.get(model_type) or _kind(network, config.name)
    backbone: Backbone = kind(network, described)
    if kind in (FeatureMapBackbone, TokenBackbone) and config.trainable:
        backbone.idle = idle_parameters(backbone)
        for name in backbone.idle:
            backbone.get_parameter(name).requires_grad_(False)
    return backbone


def _kind(network: Any, name: str) -> type[Backbone]:
    """The class for a network of `transformers`, depending on whether it outputs a feature map or tokens."""
    image = blank(network, natural_size(network))
    fitted = "interpolate_pos_encoding" in inspect.signature(network.forward).parameters
    with torch.no_grad(), evaluated(network):
        found = network(image, **({"interpolate_pos_encoding": True} if fitted else {}))
    last = getattr(found, "last_hidden_state", None)
    if isinstance(last, Tensor) and last.dim() in (3, 4):
        return FeatureMapBackbone if last.dim() == 4 else TokenBackbone
    raise UserError(
        f"backbone '{name}': model type '{network.config.model_type}' returns neither a feature map nor tokens; name "
        "another model."
    )
