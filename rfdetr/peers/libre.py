"""Networks of the package libreyolo: YOLOX, YOLOv9, DEIM, DEIMv2 and RT-DETRv4, to be counted, exported and
timed like the other peers, or trained from scratch.

The package (MIT) is optional and never imported by default. Importing any of its families imports all, and
with them torchvision, which does not load beside every torch. So only the files of single networks are
imported here: `pip install --no-deps libreyolo` is enough. Its own training,
`libreyolo.LibreYOLOX(size="s", nb_classes=K).train(data="data.yaml")`, needs the package with all that it
asks for.
"""

import contextlib
import io
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from rfdetr.data.transforms import MEAN, STD
from rfdetr.errors import UserError
from rfdetr.peers import yolo
from rfdetr.peers.catalogue import named, require
from rfdetr.peers.liveliness import enliven, picture, spread_scores

YOLOX, YOLOV9 = "YOLOX", "YOLOv9 (MIT)"
"""Names of the catalogue of the two families that end in cells; the others end in queries."""
_PACKAGES = ("models", "models.deimv2", "training", "quant", "data")
"""Parts of the package whose own files are not read: they import everything."""
_CERTAIN = 8.0  # logit of an object that is there


def network(entry: Mapping[str, Any], classes: int = 80) -> nn.Module:
    """The network of an entry with its initial weights."""
    module, _, name = entry["class"].rpartition(".")
    with networks_alone():
        made = getattr(import_module(module), name)
        if entry["name"] == YOLOV9:
            import_module(f"{module.rpartition('.')[0]}.loss")  # which it imports when it is first trained
    with contextlib.redirect_stdout(io.StringIO()):  # some say what they are made of
        model: nn.Module = made(**entry["config"]["kwargs"], nb_classes=classes)
    begin: Any = getattr(model, "init_weights", None)
    if begin is not None:
        begin()
    return model


@contextlib.contextmanager
def networks_alone() -> Iterator[None]:
    """In the block files of single networks can be imported without the rest of the package.

    Parts of it that were imported before stay as they are; the empty ones that stand for the others are gone
    afterwards.
    """
    root = Path(import_module("libreyolo").__file__ or "").parent
    shells = {f"libreyolo.{part}": _shell(root, part) for part in _PACKAGES}
    if _find("torchvision") is None:
        shells |= _boxes_of_torchvision()
    put = {name: module for name, module in shells.items() if name not in sys.modules}
    sys.modules.update(put)
    try:
        if "libreyolo.data" in put:
            sigmas = import_module("libreyolo.data.pose_metadata") if (root / "data").is_dir() else None
            data: Any = put["libreyolo.data"]
            data.default_oks_sigmas = getattr(sigmas, "default_oks_sigmas", None)
        yield
    finally:
        for name, module in put.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]


def _find(name: str) -> Any:
    from importlib.util import find_spec

    return find_spec(name)


def _shell(root: Path, part: str) -> ModuleType:
    shell = ModuleType(f"libreyolo.{part}")
    shell.__path__ = [str(root.joinpath(*part.split(".")))]
    return shell


def _boxes_of_torchvision() -> dict[str, ModuleType]:
    """The one function of torchvision that these files name."""
    names = ("torchvision", "torchvision.ops", "torchvision.ops.boxes")
    shells = {name: ModuleType(name) for name in names}
    boxes: Any = shells[names[-1]]
    boxes.box_area = lambda b: (b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1])
    for name in names[:-1]:
        shells[name].__path__ = []
    return shells


class Cells(yolo.Cells):
    """A YOLOX or YOLOv9: pictures -> boxes [B, N, 4] (cxcywh, 0..1) and scores [B, K, N]."""

    def __init__(self, entry: Mapping[str, Any], model: Any) -> None:
        nn.Module.__init__(self)
        self.model, self.masks, self.chooses = model, False, False
        self.objectness = entry["name"] == YOLOX
        model.head.export = True
        self.classes = int(model.head.num_classes if self.objectness else model.head.nc)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """images [B, 3, S, S], values 0..1."""
        height, width = images.shape[-2:]
        scale = images.new_tensor([width, height, width, height])
        if self.objectness:
            # Trained on blue, green, red in 0..255.
            raw = self.model(255 * images.flip(1))
            return raw[..., :4] / scale, (raw[..., 4:5] * raw[..., 5:]).transpose(1, 2)
        raw = self.model(images)
        low, high = raw[:, :2].transpose(1, 2), raw[:, 2:4].transpose(1, 2)
        return torch.cat([(low + high) / 2, high - low], -1) / scale, raw[:, 4:]


class Queries(nn.Module):
    """A DEIM, DEIMv2 or RT-DETRv4: pictures -> logits [B, Q, K] and boxes [B, Q, 4]."""

    def __init__(self, entry: Mapping[str, Any], model: nn.Module) -> None:
        super().__init__()
        self.model = model
        normalised = entry["config"].get("normalised", False)
        self.shift: Tensor
        self.scale: Tensor
        self.register_buffer("shift", torch.tensor(MEAN if normalised else (0.0,) * 3).view(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor(STD if normalised else (1.0,) * 3).view(1, 3, 1, 1))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """images [B, 3, S, S], values 0..1."""
        found = self.model((images - self.shift) / self.scale)
        return found["pred_logits"], found["pred_boxes"]


def form(entry: Mapping[str, Any], model: nn.Module) -> nn.Module:
    """The network with values 0..1 as input: `Cells` or `Queries`."""
    return (Cells if has_cells(entry) else Queries)(entry, model)


def has_cells(entry: Mapping[str, Any]) -> bool:
    """Whether a network ends in cells, so that boxes are still to be chosen."""
    return entry["name"] in (YOLOX, YOLOV9)


def deployed(model: nn.Module) -> nn.Module:
    """Batch norm and branches merged, heads that nothing reads removed; in place. Outputs do not change."""
    model.eval()
    with torch.no_grad():
        for name in ("deploy", "fuse"):
            if hasattr(model, name):
                return getattr(model, name)()
        block: Any
        for block in model.modules():
            if isinstance(getattr(block, "bn", None), nn.BatchNorm2d):
                block.conv = nn.utils.fusion.fuse_conv_bn_eval(block.conv, block.bn)
                block.bn = nn.Identity()
    return model


def make_lively(entry: Mapping[str, Any], model: nn.Module) -> None:
    """`rfdetr.peers.liveliness` for a network of this package. A YOLOX's cells are all certain of an
    object, so that its classes decide.
    """
    inner: Any = form(entry, model).eval()
    shift, scale = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    size = tuple(entry["input"])

    def run(images: Tensor) -> Any:
        return inner(images * scale + shift)

    enliven(model, run, size)
    if not has_cells(entry):
        return
    head: Any = model.head
    with torch.no_grad():
        for layer in head.obj_preds if inner.objectness else ():
            layer.weight.zero_()
            layer.bias.fill_(_CERTAIN)
    layers = list(head.cls_preds) if inner.objectness else [branch[-1] for branch in head.cv3]
    spread_scores(layers, lambda: run(picture(size)))


def from_scratch(name: str, classes: int, seed: int = 0) -> nn.Module:
    """A YOLOX or YOLOv9 of the catalogue ("yolox-s", "yolov9-mit-t") for so many classes with initial
    weights, in training mode. UserError for another network, and without the package.
    """
    entry = _trainable(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return network(entry, classes).train()


def training_loss(
    name: str, model: nn.Module, images: Tensor, boxes: Sequence[Tensor], labels: Sequence[Tensor]
) -> Tensor:
    """The family's own loss of a batch, to be minimised by any optimiser.

    images [B, 3, S, S], values 0..1, S a multiple of 32; boxes [M, 4] (cxcywh, 0..1) and labels [M] of each
    picture.
    """
    entry = _trainable(name)
    side = images.shape[-1]
    targets = images.new_zeros(len(images), max(1, *(len(each) for each in boxes)), 5)
    targets[..., 0] = -1  # what is no object
    for row, box, label in zip(targets, boxes, labels, strict=True):
        middle, half = box[:, :2], box[:, 2:] / 2
        corners = torch.cat([middle - half, middle + half], 1)
        row[: len(box), 0] = label
        row[: len(box), 1:] = box * side if entry["name"] == YOLOX else corners
    given = 255 * images.flip(1) if entry["name"] == YOLOX else images
    return model.train()(given, targets)["total_loss"]


def detections(name: str, model: nn.Module, images: Tensor, nms: str = "evaluation") -> dict[str, Tensor]:
    """What a network of `from_scratch` finds: logits [B, 300, K] and boxes [B, 300, 4] (cxcywh, 0..1).

    images [B, 3, S, S], values 0..1. nms: of `rfdetr.peers.yolo.MODES`.
    """
    inner, training = Cells(_trainable(name), model), model.training
    try:
        model.eval()
        with torch.no_grad():
            values = [value.cpu().numpy() for value in inner(images)]
    finally:
        model.train(training)
    how = yolo.mode_of(nms)
    found = [yolo.finished([value[i : i + 1] for value in values], how) for i in range(len(images))]
    return {key: torch.cat([torch.from_numpy(each[key]) for each in found]) for key in ("logits", "boxes")}


def _trainable(name: str) -> dict[str, Any]:
    entry = named(name)
    if not has_cells(entry):
        raise UserError(f"{name} is not trained from scratch here: choose a YOLOX or a YOLOv9 of libreyolo")
    require(entry)
    return entry
