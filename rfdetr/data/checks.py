"""What commands do with the data report: one line of it, and what stops them before the first step."""

from collections import Counter

from rfdetr.data.annotations import brief
from rfdetr.data.categories import shortened
from rfdetr.data.dataset import DetectionDataset
from rfdetr.data.report import Problem
from rfdetr.errors import UserError

OTHER_CLASS = "class that the training data do not have"
WRITTEN_OTHERWISE = "class without an object in train, which has one of nearly the same name"


def summary_line(dataset: DetectionDataset) -> str:
    """One line such as "8 problems in train, see `data check`: ...", or "" for a dataset without problems."""
    report = dataset.report
    if report is None or not report:
        return ""
    total = report.total
    kinds = ", ".join(f"{kind}: {count}" for kind, count in Counter(report.counts).most_common(3))
    more = ", ..." if len(report.counts) > 3 else ""
    return f"{total} problem{'s' * (total != 1)} in {dataset.split}, see `data check`: {kinds}{more}"


def before_training(train: DetectionDataset, val: DetectionDataset | None = None) -> None:
    """Print one line for every split with problems.

    Raises UserError where training could not learn or be judged: no object to learn from, objects of a class
    in `val` that `train` does not have.
    """
    announce(train, *([] if val is None else [val]))
    if train.untrainable:
        raise UserError(f"there is nothing to learn from: {train.untrainable}")
    for problem in compare_splits(train, val) if val is not None else []:
        if problem.stops:
            raise UserError(problem.text)
        print(problem.text, flush=True)


def before_search(dataset: DetectionDataset) -> None:
    """Print the line of a dataset with problems; UserError if it has no object, so that no AP is defined."""
    announce(dataset)
    if dataset.untrainable:
        raise UserError(f"AP is undefined: {dataset.untrainable}")


def announce(*datasets: DetectionDataset) -> None:
    """Print how missing splits were made, and one line for every dataset with problems."""
    for note in dict.fromkeys(dataset.split_note for dataset in datasets if dataset.split_note):
        print(f"{datasets[0].name}: {note}", flush=True)
    for line in filter(None, map(summary_line, datasets)):
        print(line, flush=True)


def compare_splits(train: DetectionDataset, other: DetectionDataset) -> list[Problem]:
    """Problems of two splits of one dataset taken together: their classes, matched by NAME.

    Another order or other ids of the same names are no problem (they are mapped), nor is a class that `other`
    lacks, nor one that only `other` declares and that has no object there. Objects in val of a class that
    `train` does not have stop; those of a class that both declare do not, but one that has no object in train
    and is called nearly as another that has is named.
    """
    seen = {train.class_names[index] for index in _used(train)} or set(train.class_names)
    known = {" ".join(name.split()).casefold(): name for name in seen}
    problems = []
    for index, count in sorted(_used(other).items()):
        name = other.class_names[index]
        if name in seen:
            continue
        alike = known.get(" ".join(name.split()).casefold())
        meant = f" (is it {alike!r}, written otherwise?)" if alike else ""
        begin = f"{other.split} has {count} object{'s' * (count != 1)} of the class {name[:80]!r}, "
        if name in train.class_names:
            if alike:
                problems.append(Problem(WRITTEN_OTHERWISE, f"{begin}and {train.split} has none{meant}"))
            continue
        text = (
            f"{begin}which {train.split} does not have{meant}; its classes are"
            f" {brief(shortened(train.class_names))}: give both splits the same names, or remove these"
            " objects"
        )
        problems.append(Problem(OTHER_CLASS, text, stops=other.split == "val"))
    return problems


def _used(dataset: DetectionDataset) -> Counter[int]:
    """Class index -> objects, crowd regions among them."""
    ids = [annotation["category_id"] for annotation in dataset.coco["annotations"]]
    return Counter(map(dataset.category_ids.index_of, ids))
