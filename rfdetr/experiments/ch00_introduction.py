"""The introduction: a detector's answer, matching and loss, average precision by hand, the notation."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from rfdetr.arch import SEARCH_GRID, TRAINING_GRID, Arch
from rfdetr.benchmark.flops import FlopCount, analytic, analytic_table
from rfdetr.data.categories import CategoryMap
from rfdetr.data.dataset import DetectionDataset, Target
from rfdetr.data.transforms import collate
from rfdetr.evaluation.coco import evaluate_detections
from rfdetr.model.config import ModelConfig
from rfdetr.model.detector import RFDETR
from rfdetr.model.modes import evaluating
from rfdetr.model.outputs import Output, Prediction
from rfdetr.model.postprocess import cxcywh_to_xyxy
from rfdetr.training.boxes import overlaps
from rfdetr.training.losses import Criterion
from rfdetr.training.matcher import MatchCosts, label_cost, match
from rfdetr.training.targets import pack_targets

if TYPE_CHECKING:
    import pandas as pd

RECALLS = np.linspace(0, 1, 101)
"""The values of recall at which COCO reads precision."""
THRESHOLDS = np.linspace(0.5, 0.95, 10)
"""The overlaps over which COCO's AP is the mean."""


@dataclass(frozen=True)
class Answer:
    """One picture and what one sub-network says about it.

    pixels [H, W, 3]; logits [Q, K]; boxes [Q, 4] cxcywh in 0..1.
    """

    pixels: np.ndarray
    target: Target
    names: tuple[str, ...]
    logits: Tensor
    boxes: Tensor

    @property
    def scores(self) -> np.ndarray:
        """[Q] the score of each query's best class, as float64."""
        return self.logits.sigmoid().amax(1).double().numpy()


def busiest(dataset: DetectionDataset) -> int:
    """Index of the (first) picture with the most objects."""
    return int(np.argmax([len(dataset[index][1]) for index in range(len(dataset))]))


def ask(model: RFDETR, dataset: DetectionDataset, index: int, arch: Arch) -> Answer:
    """Show one picture to one sub-network."""
    pixels, target = dataset[index]
    images, _ = collate(dataset, [index], arch.resolution)
    with evaluating(model):
        output = model(images, arch)
    return Answer(pixels, target, dataset.class_names, output.logits[0], output.boxes[0])


def pairs(answer: Answer) -> "pd.DataFrame":
    """Every query with every object, and which pairs the training code matches.

    Columns: query, object, label, box, giou (the three terms of the cost, weighted), cost, matched.
    """
    import pandas as pd

    weights, wanted = MatchCosts(), answer.target.boxes
    terms = {
        "label": weights.label * label_cost(answer.logits, answer.target.labels),
        "box": weights.box * torch.cdist(answer.boxes, wanted, p=1),
        "giou": -weights.giou * overlaps(answer.boxes[:, None], wanted[None])[1],
    }
    queries, objects = len(answer.boxes), len(wanted)
    found = match(
        answer.logits[None, None],
        answer.boxes[None, None],
        pack_targets([answer.target], torch.device("cpu"), answer.boxes.dtype),
    )
    chosen = set(zip(found.query.tolist(), found.target.tolist(), strict=True))
    places = [(q, k) for q in range(queries) for k in range(objects)]
    df = pd.DataFrame(places, columns=["query", "object"])
    df = df.assign(**{name: term.flatten().double().numpy() for name, term in terms.items()})
    return df.assign(cost=df.label + df.box + df.giou, matched=[place in chosen for place in places])


def training_loss(answer: Answer) -> float:
    """The loss of the training code for this one answer, not divided by the number of objects."""
    nothing = torch.zeros(1, 1, 1, 1)
    output = Output(Prediction(answer.logits[None], answer.boxes[None]), projector=nothing)
    return float(Criterion(groups=1)(output, [answer.target], normaliser=1.0)["total"])


def greedy(costs: np.ndarray) -> float:
    """Sum of the costs when the cheapest pair left is taken again and again. costs [queries, objects]."""
    left, total = np.array(costs, dtype=float), 0.0
    for _ in range(min(left.shape)):
        row, column = np.unravel_index(np.argmin(left), left.shape)
        total += float(left[row, column])
        left[row], left[:, column] = np.inf, np.inf
    return total


def ranking(answer: Answer, threshold: float = 0.5) -> "pd.DataFrame":
    """The detections of one picture, best first, each a hit or a false alarm; classes are ignored.

    A detection takes the free object that it overlaps most, and is a hit if that is at least `threshold`.
    Columns: rank, query, score, overlap (IoU with that object; 0 when none is free), hit, precision, recall.
    """
    import pandas as pd

    shared = overlaps(answer.boxes[:, None].double(), answer.target.boxes[None].double())[0].numpy()
    free = np.ones(shared.shape[1], dtype=bool)
    rows = []
    for rank, query in enumerate(np.argsort(-answer.scores, kind="stable"), start=1):
        overlap = np.where(free, shared[query], 0.0)
        best = int(overlap.argmax())
        hit = bool(overlap[best] >= threshold)
        free[best] &= not hit
        rows.append((rank, int(query), answer.scores[query], float(overlap[best]), hit))
    df = pd.DataFrame(rows, columns=["rank", "query", "score", "overlap", "hit"])
    hits = df.hit.cumsum()
    return df.assign(precision=hits / df["rank"], recall=hits / shared.shape[1])


def average_precision(ranked: "pd.DataFrame") -> float:
    """Area under precision over recall as COCO reads it: at 101 values of recall, each time the best
    precision at that recall or a higher one.
    """
    best = np.maximum.accumulate(ranked.precision.to_numpy()[::-1])[::-1]
    at = np.searchsorted(ranked.recall.to_numpy(), RECALLS, side="left")
    return float(np.mean([best[i] if i < len(best) else 0.0 for i in at]))


def by_threshold(answer: Answer) -> "pd.DataFrame":
    """AP by hand at each of the ten overlaps. Columns: threshold, AP."""
    import pandas as pd

    values = [average_precision(ranking(answer, threshold)) for threshold in THRESHOLDS]
    return pd.DataFrame({"threshold": THRESHOLDS, "AP": values})


class OnePicture(DetectionDataset):
    """The picture of an answer as a data set with a single class, for the evaluator."""

    def __init__(self, answer: Answer) -> None:
        self.name, self.split = "one picture", "val"
        self.category_ids = CategoryMap.from_names(("digit",))
        self._answer = answer

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> tuple[np.ndarray, Target]:
        """The picture and its target, whatever the index."""
        return self._answer.pixels, self._answer.target

    @property
    def coco(self) -> dict[str, Any]:
        """The ground truth: every object is of the one class."""
        height, width = self._answer.target.size
        image = self._answer.target.image_id
        annotations = [
            {
                "id": number,
                "image_id": image,
                "category_id": self.category_ids.id_of(0),
                "bbox": [left, top, right - left, bottom - top],
                "area": (right - left) * (bottom - top),
                "iscrowd": 0,
            }
            for number, (left, top, right, bottom) in enumerate(self._corners(self._answer.target.boxes), 1)
        ]
        images = [{"id": image, "file_name": "picture.png", "width": width, "height": height}]
        return {"images": images, "annotations": annotations, "categories": self.category_ids.to_coco()}

    def detections(self) -> list[dict[str, Any]]:
        """The answer as the evaluator wants it."""
        count = len(self._answer.boxes)
        return [
            {
                "image_id": self._answer.target.image_id,
                "scores": self._answer.scores,
                "labels": np.zeros(count, dtype=np.int64),
                "boxes": np.array(self._corners(self._answer.boxes)),
            }
        ]

    @property
    def fingerprint(self) -> str:
        """Not kept anywhere."""
        return "one picture"

    @property
    def has_masks(self) -> bool:
        """Boxes are enough here."""
        return False

    def _corners(self, boxes: Tensor) -> list[list[float]]:
        height, width = self._answer.target.size
        corners: list[list[float]] = cxcywh_to_xyxy(boxes.double()).numpy().tolist()
        return [[a * width, b * height, c * width, d * height] for a, b, c, d in corners]


def evaluated(answer: Answer) -> dict[str, float]:
    """AP and AP50 of the same detections by pycocotools."""
    data = OnePicture(answer)
    numbers = evaluate_detections(data, data.detections())
    return {name: numbers[name] for name in ("AP", "AP50")}


def supernet_config() -> ModelConfig:
    """Sizes of the paper's supernet: everything that its printed grids can ask for."""
    largest = TRAINING_GRID.largest
    return ModelConfig(
        position_grid=TRAINING_GRID.position_grid,
        decoder_layers=max(SEARCH_GRID.decoder_layers),
        queries=largest.queries,
    )


def sharing() -> dict[str, float]:
    """How many networks the printed grid holds, and their weights if each had its own.

    Keys: points, networks, smallest, largest, all (weights deployed), supernet (weights trained).
    """
    config, archs = supernet_config(), SEARCH_GRID.distinct()
    weights = analytic_table(config, archs).params_deployed
    return {
        "points": len(SEARCH_GRID),
        "networks": len(archs),
        "smallest": float(weights.min()),
        "largest": float(weights.max()),
        "all": float(weights.sum()),
        "supernet": float(analytic(config, TRAINING_GRID.largest).params),
    }


NOTATION = (
    ("resolution", "R", "Arch.resolution", "px"),
    ("patch size", "P", "Arch.patch_size", "px"),
    ("windows", "w", "Arch.windows", "windows a side"),
    ("decoder layers", "L", "Arch.decoder_layers", "layers"),
    ("query tokens", "Q", "Arch.queries", "queries"),
    ("tokens a side", "n = R / P", "Arch.grid", "tokens"),
    ("tokens", "N = n²", "Arch.tokens", "tokens"),
    ("width of the backbone", "D", "ModelConfig.embed_dim", "channels"),
    ("blocks of the backbone", "", "ModelConfig.depth", "blocks"),
    ("width of the decoder", "", "ModelConfig.hidden_dim", "channels"),
    ("groups of queries", "G", "ModelConfig.groups", "groups"),
    ("classes", "K", "ModelConfig.num_classes", "classes"),
    ("size of the stored patch kernel", "", "ModelConfig.base_patch", "px"),
    ("positional embeddings a side", "", "ModelConfig.position_grid", "tokens"),
    ("parameters", "", "FlopCount.params", "weights"),
    ("GFLOPs", "", "FlopCount.gflops", "10⁹ operations"),
)
"""Words of the paper, symbol in this book, name in the code, unit."""


def notation(name: str = "nano") -> "pd.DataFrame":
    """The symbols with their values in one published configuration.

    Columns: words, symbol, code, unit, value.
    """
    import pandas as pd

    from rfdetr.arch import PRESETS
    from rfdetr.model.config import preset_config

    config, arch = preset_config(name), PRESETS[name].arch
    holders = {kind.__name__: value for kind, value in zip(
        (Arch, ModelConfig, FlopCount), (arch, config, analytic(config, arch, "published")), strict=True
    )}  # fmt: skip
    rows = []
    for words, symbol, code, unit in NOTATION:
        holder, attribute = code.split(".")
        rows.append((words, symbol, code, unit, getattr(holders[holder], attribute)))
    return pd.DataFrame(rows, columns=["words", "symbol", "code", "unit", "value"])
