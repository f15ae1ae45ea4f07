"""Sizes of a network (`ModelConfig`) and the published ones by name. No tensors here.

Source: Appendix A, Tables 7 and 8, and Appendix E for the doubled widths of the DINOv2-B family.
"""

from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from rfdetr.arch import PRESETS, Arch, ArchError
from rfdetr.data.categories import CategoryMap
from rfdetr.errors import UserError


@dataclass(frozen=True)
class ModelConfig:
    """Every constructor argument of `RFDETR`: the sizes that all its sub-networks share.

    num_classes       K, class logits (91 for COCO checkpoints, where the COCO id is the class index)
    embed_dim, depth, heads, mlp_ratio, feature_layers
                      of the ViT; feature_layers are 1-based stages, and block i (0-based) is global if i is
                      among them
    base_patch        side of the stored patch kernel, px
    position_grid     side of the stored position grid, tokens
    hidden_dim        width of projector and decoder
    decoder_layers, queries   the most that an `Arch` may ask for
    groups            query groups in training (Group DETR); inference uses one
    self_heads, cross_heads, points, ffn_dim   of a decoder layer
    segmentation      whether there is a mask head
    categories        names and ids of the K classes, those of the training data; None: not known
    default_arch      the architecture of calls that name none
    layer_scale       initial LayerScale; the paper starts from DINOv2's own values
    """

    num_classes: int = 91
    embed_dim: int = 384
    depth: int = 12
    heads: int = 6
    mlp_ratio: float = 4.0
    feature_layers: tuple[int, ...] = (3, 6, 9, 12)
    base_patch: int = 16
    position_grid: int = 24
    hidden_dim: int = 256
    decoder_layers: int = 3
    queries: int = 300
    groups: int = 13
    self_heads: int = 8
    cross_heads: int = 16
    points: int = 2
    ffn_dim: int = 2048
    segmentation: bool = False
    categories: CategoryMap | None = None
    default_arch: Arch | None = None
    layer_scale: float = 1.0

    def __post_init__(self) -> None:
        if isinstance(self.default_arch, dict):
            object.__setattr__(self, "default_arch", Arch(**self.default_arch))
        object.__setattr__(self, "feature_layers", tuple(sorted(self.feature_layers)))
        if self.categories is not None and self.categories.num_classes != self.num_classes:
            raise UserError(
                f"the categories ({self.categories}) are those of {self.categories.num_classes} classes, the"
                f" network has {self.num_classes}"
            )
        for name in ("num_classes", "embed_dim", "depth", "base_patch", "position_grid", "queries", "groups"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be at least 1, not {getattr(self, name)}")
        for whole, part in (
            ("embed_dim", "heads"),
            ("hidden_dim", "self_heads"),
            ("hidden_dim", "cross_heads"),
        ):
            if getattr(self, whole) % getattr(self, part):
                raise UserError(
                    f"{whole}={getattr(self, whole)} is not a multiple of {part}={getattr(self, part)};"
                    " change one of them"
                )
        if self.hidden_dim % 4:
            raise UserError(
                f"hidden_dim={self.hidden_dim} must be a multiple of 4 (sine embedding of the boxes)"
            )
        if (
            not self.feature_layers
            or not 1 <= self.feature_layers[0] <= self.feature_layers[-1] <= self.depth
        ):
            raise UserError(
                f"feature_layers={self.feature_layers} must be stages between 1 and depth={self.depth}"
            )
        if self.default_arch is not None:
            self.check(self.default_arch)

    def check(self, arch: Arch) -> None:
        """Raise ArchError if a network of this size has no such sub-network."""
        for knob in ("decoder_layers", "queries"):
            most = getattr(self, knob)
            if getattr(arch, knob) > most:
                raise ArchError(
                    f"{arch.id} asks for {getattr(arch, knob)} {knob.replace('_', ' ')}, this network has"
                    f" {most}; use at most {most} or build a network with {knob}={getattr(arch, knob)}",
                    (arch.replace(**{knob: most}),),
                )

    def cut_to(self, arch: Arch) -> "ModelConfig":
        """Sizes of the network that holds exactly one sub-network: its kernel, grid, depth and ranks, one
        query group.
        """
        return self.replace(
            base_patch=arch.patch_size,
            position_grid=arch.grid,
            decoder_layers=arch.decoder_layers,
            queries=arch.queries,
            groups=1,
            default_arch=arch,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON and checkpoints; `ModelConfig.from_dict` reads them back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "ModelConfig":
        """Read `to_dict`. Unknown fields raise UserError.

        `class_names`, one name per class, may stand for `categories`, as in files of earlier versions
        (`CategoryMap.from_class_names`).
        """
        values = dict(values)
        names = values.pop("class_names", None)
        if names is not None and values.get("categories") is None:
            values["categories"] = CategoryMap.from_class_names(names)
        if isinstance(values.get("categories"), dict):
            values["categories"] = CategoryMap(**values["categories"])
        if values.get("categories") is not None:
            values.setdefault("num_classes", values["categories"].num_classes)
        unknown = sorted(set(values) - {f.name for f in fields(cls)})
        if unknown:
            raise UserError(
                f"unknown architecture field {', '.join(unknown)}; known:"
                f" {', '.join(f.name for f in fields(cls))}"
            )
        return cls(**values)

    def replace(self, **changes: Any) -> "ModelConfig":
        """A copy with some fields changed (validated again)."""
        return replace(self, **changes)


# Widths of the two published families (model facts, "Backbone" and "Decoder").
BACKBONES: dict[str, dict[str, Any]] = {
    "dinov2-s": {
        "embed_dim": 384,
        "heads": 6,
        "hidden_dim": 256,
        "self_heads": 8,
        "cross_heads": 16,
        "points": 2,
    },
    "dinov2-b": {
        "embed_dim": 768,
        "heads": 12,
        "hidden_dim": 512,
        "self_heads": 16,
        "cross_heads": 32,
        "points": 4,
    },
}


def preset_config(name: str, num_classes: int | None = None, **overrides: Any) -> ModelConfig:
    """Sizes of a published configuration: a fixed-size network whose kernel and grid are exactly those of its
    `Arch`.

    name: a key of `PRESETS`. num_classes: default: as many as `categories` among the overrides has, else the
    published number. overrides: any field of `ModelConfig`. Raises UserError for an unknown name or field.
    """
    if name not in PRESETS:
        raise UserError(f"there is no configuration {name!r}; choose one of {', '.join(PRESETS)}")
    preset = PRESETS[name]
    arch = overrides.get("default_arch", preset.arch)
    if num_classes is not None:
        overrides["num_classes"] = num_classes
    elif not overrides.keys() & {"categories", "class_names"}:
        overrides["num_classes"] = preset.num_classes
    values = {
        **BACKBONES[preset.backbone],
        "feature_layers": preset.feature_layers,
        "base_patch": arch.patch_size,
        "position_grid": arch.grid,
        "decoder_layers": arch.decoder_layers,
        "queries": arch.queries,
        "segmentation": preset.segmentation,
        "default_arch": arch,
    }
    return ModelConfig.from_dict({**values, **overrides})
