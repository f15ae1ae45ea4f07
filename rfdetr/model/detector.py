"""RF-DETR as a supernet: one set of weights, every sub-network chosen at the call.

Source: Figure 2 and Section 3 of the paper. `model(images, arch)` runs one sub-network; `model.subnet(arch)`
copies it out as a plain module. Nothing is remembered between calls.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rfdetr.arch import Arch, ArchError
from rfdetr.data.categories import CategoryMap
from rfdetr.model.backbone import Backbone
from rfdetr.model.config import ModelConfig, preset_config
from rfdetr.model.decoder import MLP, Decoder, decode_boxes
from rfdetr.model.detections import Detections
from rfdetr.model.flex import resize_kernel, resize_positions
from rfdetr.model.linear import Linear
from rfdetr.model.load_report import LoadReport
from rfdetr.model.origin import Origin
from rfdetr.model.outputs import Output, Prediction
from rfdetr.model.predict import Options, detect, network_run, only
from rfdetr.model.projector import Projector
from rfdetr.model.queries import QuerySelection
from rfdetr.model.segmentation import MaskHead

PRIOR = 0.01  # initial probability of every class (focal prior)


class RFDETR(nn.Module):
    """The detector and segmenter, all sub-networks in one. Arguments: the fields of `ModelConfig`; K is 91
    where neither num_classes nor categories say it.

    With `decoder_layers=0` there is no decoder and the encoder's proposals are the prediction.
    """

    load_report: LoadReport | None = None
    """What became of every tensor when weights were loaded from a file (`rfdetr.load_official`)."""
    origin: Origin | None = None
    """What its checkpoint knows of the training it comes from; None for other networks."""

    def __init__(self, num_classes: int | None = None, **sizes: Any) -> None:
        super().__init__()
        config = ModelConfig.from_dict(
            sizes if num_classes is None else {"num_classes": num_classes, **sizes}
        )
        self.config = config
        self.backbone = Backbone(
            config.embed_dim,
            config.depth,
            config.heads,
            config.feature_layers,
            config.base_patch,
            config.position_grid,
            config.mlp_ratio,
            config.layer_scale,
        )
        dim = config.hidden_dim
        self.projector = Projector(len(config.feature_layers) * config.embed_dim, dim)
        self.selection = QuerySelection(dim, config.num_classes, config.queries, config.groups)
        self.mask_head = MaskHead(dim, config.decoder_layers) if config.segmentation else None
        if config.decoder_layers:
            self.decoder = Decoder(
                config.decoder_layers,
                dim,
                config.self_heads,
                config.cross_heads,
                config.points,
                config.ffn_dim,
            )
            self.query_features = nn.Parameter(torch.randn(config.groups, config.queries, dim))
            self.reference_deltas = nn.Parameter(torch.zeros(config.groups, config.queries, 4))
            self.class_head = Linear(dim, config.num_classes)
            self.box_head = MLP(dim, dim, dim, 4, zero_last=True)
        self.reset_class_heads()

    def reset_class_heads(self) -> None:
        """Fresh class layers whose initial probability is the focal prior (0.01) for every class."""
        bias = -math.log((1 - PRIOR) / PRIOR)
        heads: list[Any] = [
            self.selection.classes,
            *([self.class_head] if self.config.decoder_layers else []),
        ]
        for head in heads:
            for weight in head.weight if head.weight.dim() == 3 else [head.weight]:
                nn.init.xavier_uniform_(weight)
            nn.init.constant_(head.bias, bias)

    def resolve(self, arch: Arch | str | None) -> Arch:
        """The architecture of a call: `arch`, the one that a text names ("r96-p8-w2-d3-q30", "nano"), or the
        default one. Raises ArchError if there is none or it does not fit.
        """
        arch = Arch.parse(arch) if isinstance(arch, str) else arch or self.config.default_arch
        if arch is None:
            raise ArchError("this network has no default architecture; pass one: model(images, Arch(...))")
        self.config.check(arch)
        return arch

    def encode(self, images: Tensor, arch: Arch) -> Tensor:
        """Backbone and projector: images [B, 3, R, R] -> memory [B, n, n, hidden] (channels last).

        Depends only on resolution, patch size and windows of `arch`.
        """
        if (
            images.dim() != 4
            or images.shape[1] != 3
            or images.shape[2:] != (arch.resolution, arch.resolution)
        ):
            raise ValueError(
                f"images of shape {tuple(images.shape)} do not fit {arch.id}: expected [B, 3,"
                f" {arch.resolution}, {arch.resolution}]; rectangular images are resized to a square first"
                " (rfdetr.data.transforms.preprocess)"
            )
        return self.projector(self.backbone(images, arch)).permute(0, 2, 3, 1)

    def decode(
        self,
        memory: Tensor,
        resolution: int,
        depth: int,
        queries: int,
        every_layer: bool = True,
        selected: tuple[Tensor, Tensor, Tensor] | None = None,
    ) -> Output:
        """Query selection, decoder and heads on an encoded batch.

        memory [B, n, n, hidden] from `encode`; resolution in px (for the size of the masks); depth 0..max;
        queries per group. `every_layer` False: only the last layer is predicted (what a deployed network
        does).
        selected: result of `self.selection(memory, more_queries, 1)`, of which the first ranks are used
        (evaluation only).
        """
        groups = self.config.groups if self.training else 1
        if selected is None:
            features, logits, boxes = self.selection(memory, queries, groups)
        else:
            features, logits, boxes = (part[:, :queries] for part in selected)
        output = Output(Prediction(logits, boxes), memory.permute(0, 3, 1, 2))
        mask_map = self.mask_head.resize(output.projector, resolution) if self.mask_head is not None else None
        if mask_map is not None and self.mask_head is not None and (every_layer or depth == 0):
            self.mask_head.add_masks(output.encoder, mask_map, features)
        if depth == 0:
            return output

        kept = boxes.shape[1] // groups
        batch = memory.shape[0]
        deltas = self.reference_deltas[:groups, :kept].flatten(0, 1)
        reference = decode_boxes(deltas.to(boxes.dtype), boxes.detach())
        content = self.query_features[:groups, :kept].flatten(0, 1).expand(batch, -1, -1)
        hidden = self.decoder(content, reference, memory, depth, groups)
        predicted = hidden if every_layer else hidden[-1:]
        stacked = torch.stack(predicted)
        all_logits = self.class_head(stacked)
        all_boxes = decode_boxes(self.box_head(stacked).to(reference.dtype), reference)
        output.layers = [Prediction(*pair) for pair in zip(all_logits, all_boxes, strict=True)]
        if mask_map is not None and self.mask_head is not None:
            for index, block in enumerate(self.mask_head.blocks[:depth]):
                mask_map = block(mask_map)
                if every_layer or index == depth - 1:
                    position = index if every_layer else 0
                    self.mask_head.add_masks(
                        output.layers[position], self.mask_head.embed_pixels(mask_map), hidden[index]
                    )
        return output

    def forward(self, images: Tensor, arch: Arch | str | None = None, every_layer: bool = True) -> Output:
        """Predict with one sub-network.

        images        [B, 3, R, R], normalised (rfdetr.data.transforms), R = arch.resolution
        arch          the sub-network; None takes the default architecture
        every_layer   predictions of all decoder layers and encoder masks (True), or of the last layer only

        In training mode there are groups * queries predictions per image, group after group.
        """
        arch = self.resolve(arch)
        memory = self.encode(images, arch)
        return self.decode(memory, arch.resolution, arch.decoder_layers, arch.queries, every_layer)

    def subnet(self, arch: Arch | str | None = None) -> "SubNet":
        """One sub-network as a plain module with copied weights: resized kernel and positions, cut decoder,
        kept ranks.

        `model.subnet(arch)(images)` equals `model(images, arch)`; this network is not touched.
        """
        return SubNet(self, self.resolve(arch))

    def predict(
        self,
        images: Any,
        arch: Arch | str | None = None,
        threshold: float = 0.5,
        *,
        batch_size: int = 8,
        max_detections: int | None = None,
        keep_images: bool = True,
    ) -> list[Detections]:
        """Detections of every picture, in the given order; always a list (`predict_one` for one picture).

        images          one picture or an iterable of them, of any sizes: paths, Pillow images, arrays
                        [height, width, 3], tensors [3, height, width]
        arch            the sub-network, as a value or a text such as "r384-p16-w2-d2-q300"; None takes the
                        default one
        threshold       least score, 0..1
        batch_size      pictures per forward pass
        max_detections  per picture; default: the number of queries
        keep_images     keep every picture in its detections, for `Detections.plot`

        Pictures are resized to the square that the architecture wants (`rfdetr.data.transforms`). The network
        runs on its own device in evaluation mode; the mode of every module is restored. Raises UserError
        naming a picture that is missing or unreadable.
        """
        options = Options(threshold, batch_size, max_detections, keep_images)
        return list(self.predict_each(images, arch, options))

    def predict_one(self, image: Any, arch: Arch | str | None = None, threshold: float = 0.5) -> Detections:
        """Detections of one picture; see `predict`. Raises UserError when there is not exactly one."""
        return only(self.predict(image, arch, threshold))

    def predict_each(
        self, images: Any, arch: Arch | str | None = None, options: Options | None = None
    ) -> Iterator[Detections]:
        """Like `predict`, one picture after the other: for more pictures than fit in memory."""
        arch = self.resolve(arch)
        run = network_run(self, arch)
        return detect(run, arch.resolution, images, options or Options(), self.config.categories)


class SubNet(nn.Module):
    """One sub-network cut out of a supernet, for export, counting and timing. `sub(images)` takes no
    architecture.
    """

    def __init__(self, supernet: RFDETR, arch: Arch) -> None:
        super().__init__()
        self.arch = arch
        config = supernet.config.cut_to(arch)
        with torch.device("meta"):
            self.network = RFDETR(**config.to_dict())
        self.network.load_state_dict(cut_weights(supernet, config, arch), assign=True)
        self.eval()

    @property
    def config(self) -> ModelConfig:
        """Sizes of this sub-network."""
        return self.network.config

    def forward(self, images: Tensor) -> Output:
        """images [B, 3, R, R] -> Output with the last decoder layer only."""
        return self.network(images, self.arch, every_layer=False)

    def predict(
        self, images: Any, arch: Arch | str | None = None, threshold: float = 0.5, **options: Any
    ) -> list[Detections]:
        """Detections of every picture; see `RFDETR.predict`. arch: its own, or None."""
        return self.network.predict(images, self.resolve(arch), threshold, **options)

    def predict_one(self, image: Any, arch: Arch | str | None = None, threshold: float = 0.5) -> Detections:
        """Detections of one picture; see `RFDETR.predict_one`."""
        return only(self.predict(image, arch, threshold))

    def resolve(self, arch: Arch | str | None) -> Arch:
        """Its own architecture; ArchError when another one is named."""
        given = Arch.parse(arch) if isinstance(arch, str) else arch or self.arch
        if given != self.arch:
            raise ArchError(
                f"this sub-network is {self.arch.id}, not {given.id}; ask the supernet", (self.arch,)
            )
        return self.arch


_RESIZED = ("backbone.patch_kernel", "backbone.positions")


def cut_weights(supernet: RFDETR, config: ModelConfig, arch: Arch) -> dict[str, Tensor]:
    """Copies of a supernet's weights for a network of the sizes `config`, whose kernel and positions are
    those of `arch`.
    """
    source = supernet.state_dict()
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in RFDETR(**config.to_dict()).state_dict().items()}
    cut = {name: _cut(source[name], shape) for name, shape in shapes.items() if name not in _RESIZED}
    with torch.no_grad():
        cut["backbone.patch_kernel"] = resize_kernel(source["backbone.patch_kernel"], arch.patch_size)
        cut["backbone.positions"] = resize_positions(source["backbone.positions"], arch.grid)
    return {name: tensor.detach().clone() for name, tensor in cut.items()}


def _cut(tensor: Tensor, shape: Sequence[int]) -> Tensor:
    """The first entries along every dimension: group 0, the first ranks."""
    return tensor[tuple(slice(size) for size in shape)] if shape else tensor


def build(name: str, num_classes: int | None = None, **overrides: Any) -> RFDETR:
    """A published configuration with random weights; `overrides` are fields of `ModelConfig`.

    name: a key of `rfdetr.PRESETS`, e.g. "nano" or "seg-medium". Without num_classes, categories and
    class_names the classes are those of the published network: COCO's.
    """
    config = preset_config(name, num_classes, **overrides)
    if num_classes is None and config.categories is None and "num_classes" not in overrides:
        coco = CategoryMap.official()
        config = config.replace(categories=coco if config.num_classes == coco.num_classes else None)
    return RFDETR(**config.to_dict())
