"""The end of a YOLO: non-maximum suppression and whole masks, in the file and, to compare with, in NumPy.

A YOLO's network gives a box and K scores for each of thousands of cells. What a user waits for comes after:
the choice of boxes, and for -seg the masks, which the network gives as 32 prototypes and as many coefficients
a box. Both are made part of the exported graph here, with the outputs of this package's own files.

evaluation  every (box, class) pair whose score is over 0.001 takes part, as in published accuracies
deployed    the best class of every box, if its score is over 0.25: what the package's own prediction does
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from rfdetr.benchmark.nms import nms
from rfdetr.errors import UserError

if TYPE_CHECKING:
    import onnx

MOST = 300
IOU = 0.7
CERTAIN = 1 - 1e-6
"""Larger scores have this score's logit: that of 1 is infinite."""
LOWEST = -1e4
"""Logit of a class that a box does not have; its sigmoid is 0."""


@dataclass(frozen=True)
class Suppression:
    """How boxes are chosen. threshold: least score. single: only the best class of each box takes part."""

    threshold: float
    single: bool


MODES = {"evaluation": Suppression(0.001, False), "deployed": Suppression(0.25, True)}


def mode_of(name: str) -> Suppression:
    """The suppression with this name. UserError for another."""
    if name not in MODES:
        raise UserError(f"--nms is one of {', '.join(MODES)}, not {name!r}")
    return MODES[name]


class Cells(nn.Module):
    """The network of a YOLO: pictures -> boxes [1, N, 4] (cxcywh, 0..1), scores [1, K, N] and, for -seg,
    coefficients [1, 32, N] and prototypes [1, 32, S / 4, S / 4].
    """

    def __init__(self, model: Any, size: tuple[int, int]) -> None:
        super().__init__()
        self.model, self.size = model, size
        head = model.model[-1]
        head.export, head.format = True, "onnx"
        self.classes: int = head.nc
        self.masks = hasattr(head, "proto")
        self.chooses = bool(getattr(head, "end2end", False))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """images [1, 3, S, S], values 0..1. A network that chooses its boxes itself gives logits [1, Q, K]
        and boxes [1, Q, 4] instead.
        """
        found = self.model(images)
        raw, *prototypes = found if isinstance(found, tuple | list) else (found,)
        height, width = self.size
        scale = raw.new_tensor([width, height, width, height])
        if self.chooses:
            low, high = raw[..., :2], raw[..., 2:4]
            label = raw[..., 5:6] == torch.arange(self.classes)
            logits = torch.where(label, raw[..., 4:5].logit(eps=1e-6), LOWEST)
            return logits, torch.cat([(low + high) / 2, high - low], -1) / scale
        boxes = raw[:, :4].transpose(1, 2) / scale
        scores = raw[:, 4 : 4 + self.classes]
        return (boxes, scores, raw[:, 4 + self.classes :], prototypes[0]) if self.masks else (boxes, scores)


def finished(values: list[np.ndarray], how: Suppression) -> dict[str, np.ndarray]:
    """What the end of the graph computes, from the outputs of `Cells`, in NumPy: logits [1, 300, K], boxes
    [1, 300, 4] (cxcywh), masks.
    """
    boxes, scores = values[0][0], values[1][0]
    if how.single:
        scores = np.where(scores == scores.max(axis=0), scores, 0)
    labels, index = np.nonzero(scores > how.threshold)
    half = boxes[index, 2:] / 2
    corners = np.concatenate([boxes[index, :2] - half, boxes[index, :2] + half], axis=1)
    found = scores[labels, index]
    kept = nms(corners, found, labels, IOU)[:MOST]
    logits = np.full((1, MOST, len(scores)), LOWEST, np.float32)
    out = np.zeros((1, MOST, 4), np.float32)
    # Rows that are not filled have the box of cell 0, as padding in the graph has.
    chosen = np.zeros(MOST, int)
    chosen[: len(kept)] = index[kept]
    out[0] = boxes[chosen]
    kept_scores = np.minimum(found[kept], np.float32(CERTAIN))
    logits[0, np.arange(len(kept)), labels[kept]] = np.log(kept_scores / (1 - kept_scores))
    result = {"logits": logits, "boxes": out}
    if len(values) == 4:
        result["masks"] = _masks(out[0], values[2][0].T[chosen], values[3][0])[None]
    return result


def _masks(boxes: np.ndarray, coefficients: np.ndarray, prototypes: np.ndarray) -> np.ndarray:
    """[Q, H, W] logits inside the boxes, 0 outside."""
    depth, height, width = prototypes.shape
    masks = (coefficients @ prototypes.reshape(depth, -1)).reshape(-1, height, width)
    low, high = boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2
    x, y = np.arange(width, dtype=np.float32) / width, np.arange(height, dtype=np.float32) / height
    inside_x = (x >= low[:, :1]) & (x < high[:, :1])
    inside_y = (y >= low[:, 1:]) & (y < high[:, 1:])
    return masks * (inside_y[:, :, None] & inside_x[:, None, :])


_BOXES = """
  how_many = Constant <value_ints = [{most}]> ()
  overlap = Constant <value_floats = [{iou}]> ()
  threshold = Constant <value_floats = [{threshold}]> ()
  zero = Constant <value_floats = [0.0]> ()
  first = Constant <value_ints = [1]> ()
  second = Constant <value_ints = [2]> ()
  all = Constant <value_ints = [-1]> ()
  cells = Constant <value_ints = [{cells}]> ()
  no_score = Constant <value_floats = [{zeros}]> ()
  no_pair = Constant <value_ints = [{integers}]> ()
  front = Constant <value_ints = [0]> ()
  {choose}
  triples = NonMaxSuppression <center_point_box = 1> (cell_boxes, taking_part, how_many, overlap, threshold)
  class_column = Gather <axis = 1> (triples, first)
  cell_column = Gather <axis = 1> (triples, second)
  class_part = Mul (class_column, cells)
  pair_column = Add (class_part, cell_column)
  pairs = Reshape (pair_column, all)
  flat = Reshape (taking_part, all)
  pair_scores = Gather <axis = 0> (flat, pairs)
  padded_scores = Concat <axis = 0> (pair_scores, no_score)
  padded_pairs = Concat <axis = 0> (pairs, no_pair)
  top, order = TopK <axis = 0> (padded_scores, how_many)
  chosen = Gather <axis = 0> (padded_pairs, order)
  class_of = Div (chosen, cells)
  cell_of = Mod (chosen, cells)
  boxes = Gather <axis = 1> (cell_boxes, cell_of)
  names = Constant <value_ints = [{names}]> ()
  class_row = Unsqueeze (class_of, first)
  is_class = Equal (class_row, names)
  found = Greater (top, zero)
  found_row = Unsqueeze (found, first)
  is_found = And (is_class, found_row)
  one = Constant <value_floats = [1.0]> ()
  certain = Constant <value_floats = [{certain}]> ()
  below_one = Min (top, certain)
  rest = Sub (one, below_one)
  odds = Div (below_one, rest)
  odds_logit = Log (odds)
  logit_row = Unsqueeze (odds_logit, first)
  lowest = Constant <value_floats = [{lowest}]> ()
  table = Where (is_found, logit_row, lowest)
  logits = Unsqueeze (table, front)
"""
_CHOOSE = {
    True: """class_axis = Constant <value_ints = [1]> ()
  best = ReduceMax <keepdims = 1> (cell_scores, class_axis)
  is_best = Equal (cell_scores, best)
  taking_part = Where (is_best, cell_scores, zero)""",
    False: "taking_part = Identity (cell_scores)",
}
_MASKS = """
  own = Gather <axis = 2> (cell_coefficients, cell_of)
  rows = Transpose <perm = [0, 2, 1]> (own)
  flat_shape = Constant <value_ints = [1, {depth}, {pixels}]> ()
  columns = Reshape (prototypes, flat_shape)
  products = MatMul (rows, columns)
  mask_shape = Constant <value_ints = [1, {most}, {height}, {width}]> ()
  whole = Reshape (products, mask_shape)
  middle_at = Constant <value_ints = [0, 1]> ()
  size_at = Constant <value_ints = [2, 3]> ()
  two = Constant <value_floats = [2.0]> ()
  middle = Gather <axis = 2> (boxes, middle_at)
  sizes = Gather <axis = 2> (boxes, size_at)
  half = Div (sizes, two)
  low = Sub (middle, half)
  high = Add (middle, half)
  x_of = Constant <value_ints = [0]> ()
  low_x = Gather <axis = 2> (low, x_of)
  low_y = Gather <axis = 2> (low, first)
  high_x = Gather <axis = 2> (high, x_of)
  high_y = Gather <axis = 2> (high, first)
  x = Constant <value_floats = [{x}]> ()
  y = Constant <value_floats = [{y}]> ()
  right_of = GreaterOrEqual (x, low_x)
  left_of = Less (x, high_x)
  in_x = And (right_of, left_of)
  below = GreaterOrEqual (y, low_y)
  above = Less (y, high_y)
  in_y = And (below, above)
  last_axis = Constant <value_ints = [3]> ()
  tall = Unsqueeze (in_y, last_axis)
  wide = Unsqueeze (in_x, second)
  inside = And (tall, wide)
  ones = Cast <to = 1> (inside)
  masks = Mul (whole, ones)
"""


def end_graph(shapes: list[tuple[int, ...]], how: Suppression, opset: int) -> "onnx.ModelProto":
    """The end as an ONNX model, for outputs of `Cells` of these shapes."""
    from onnx import parser

    (_, cells, _), (_, classes, _) = shapes[:2]
    inputs = [f"float[1, {cells}, 4] cell_boxes", f"float[1, {classes}, {cells}] cell_scores"]
    outputs = [f"float[1, {MOST}, {classes}] logits", f"float[1, {MOST}, 4] boxes"]
    body = _BOXES.format(
        most=MOST,
        iou=IOU,
        threshold=how.threshold,
        cells=cells,
        zeros=_list([0.0] * MOST),
        integers=_list([0] * MOST),
        choose=_CHOOSE[how.single],
        names=_list(range(classes)),
        lowest=LOWEST,
        certain=CERTAIN,
    )
    if len(shapes) == 4:
        _, depth, height, width = shapes[3]
        inputs += [f"float[1, {depth}, {cells}] cell_coefficients"]
        inputs += [f"float[1, {depth}, {height}, {width}] prototypes"]
        outputs += [f"float[1, {MOST}, {height}, {width}] masks"]
        # The borders as float32 has them, so that the file and `finished` agree on every pixel.
        sides = {name: np.arange(n, dtype=np.float32) / n for name, n in (("x", width), ("y", height))}
        body += _MASKS.format(
            most=MOST,
            depth=depth,
            pixels=height * width,
            height=height,
            width=width,
            **{name: _list(values.tolist()) for name, values in sides.items()},
        )
    header = f'<ir_version: 10, opset_import: ["" : {opset}]>'
    return parser.parse_model(f"{header} end ({', '.join(inputs)}) => ({', '.join(outputs)}) {{{body}}}")


def _list(values: Any) -> str:
    return ", ".join(repr(v) if isinstance(v, int) else f"{v:.9f}" for v in values)


def output_names(masks: bool) -> list[str]:
    """Names of the outputs of `Cells` in the graph."""
    return ["cell_boxes", "cell_scores", *(["cell_coefficients", "prototypes"] if masks else [])]


def as_arrays(values: tuple[Tensor, ...]) -> list[np.ndarray]:
    """Outputs of `Cells` for `finished`."""
    with torch.no_grad():
        return [value.detach().numpy() for value in values]
