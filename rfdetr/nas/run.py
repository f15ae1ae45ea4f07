"""What all stages of a run share: options, data, the stages so far, and the networks that they made."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rfdetr.arch import Arch, SearchSpace
from rfdetr.data.checks import before_training, compare_splits, summary_line
from rfdetr.data.dataset import DetectionDataset
from rfdetr.data.registry import dataset_names
from rfdetr.errors import UserError
from rfdetr.model.detector import RFDETR
from rfdetr.nas.choose import keep_detections, scored
from rfdetr.nas.look import Proposal
from rfdetr.nas.measure import StepCost, gflops
from rfdetr.nas.options import NasOptions
from rfdetr.nas.processes import Trainer
from rfdetr.nas.stages import Stages
from rfdetr.search.timing import Protocol
from rfdetr.training.checkpoint import model_from_checkpoint
from rfdetr.training.config import TrainConfig

if TYPE_CHECKING:
    import pandas as pd

SPLITS = ("train", "val", "test")


class Run:
    """One run in one folder. `result(stage)` gives what a finished stage returned."""

    def __init__(
        self, options: NasOptions, out: str | Path, command: str = "", say: Callable[[str], None] = print
    ) -> None:
        self.options, self.root, self.say = options, Path(out), say
        self.command = command or "python -m rfdetr nas"
        self.stages = Stages(self.root, say)
        self.trainer = Trainer(options.data, options.skip_missing, options.devices or 1)

    def data(self, split: str) -> DetectionDataset:
        """A split of the data, opened once."""
        return self.trainer.split(split)

    @property
    def source(self) -> str:
        """The data as later commands are to be told: a registered name, or a folder's full path."""
        data = self.options.data
        named = data in dataset_names() or not Path(data).exists()
        return data if named else str(Path(data).resolve())

    def check_data(self) -> None:
        """Say how missing splits were made and what is wrong with the data. UserError for data that nothing
        can be learned from or measured on.
        """
        before_training(self.data("train"), self.data("val"))
        test = self.data("test")
        for line in (summary_line(test), *(p.text for p in compare_splits(self.data("train"), test))):
            if line:
                self.say(line)
        for split in SPLITS:
            if self.data(split).untrainable or not _objects(self.data(split)):
                why = self.data(split).untrainable or "no picture has an object"
                raise UserError(
                    f"{split} of {self.options.data}: nothing can be learned or measured: {why}; give its"
                    " pictures objects, or leave this split out: it is then made from the others"
                )
            if self.options.segmentation and not self.data(split).has_masks:
                why = self.data(split).maskless
                raise UserError(
                    f"{split} of {self.options.data} has no masks{': ' + why if why else ''}; leave out"
                    " --segmentation, or give every object a mask"
                )

    @property
    def metric(self) -> str:
        """What networks are compared by: mask AP with a mask head, else box AP."""
        return "mask_AP" if self.options.segmentation else "AP"

    @property
    def protocol(self) -> Protocol:
        """How latencies are measured, with the images that conversions look at."""
        asked = self.options
        return Protocol(asked.runtime, asked.precision, asked.threads, images=self.data("train"))

    def result(self, stage: str) -> Mapping[str, Any]:
        """What a finished stage returned."""
        return self.stages.done[stage].result

    def folder(self, stage: str) -> Path:
        """The folder of a finished stage."""
        return self.stages.done[stage].folder

    def has(self, stage: str) -> bool:
        """Whether the run has made (or found) this stage."""
        return stage in self.stages.done

    @property
    def proposal(self) -> Proposal:
        """The space that looking at the data proposed."""
        result = self.result("look")
        return Proposal(SearchSpace(**result["space"]), tuple(result["reasons"]))

    @property
    def space(self) -> SearchSpace:
        """What the supernet's steps draw from."""
        return SearchSpace(**self.result("plan")["space"])

    @property
    def config(self) -> TrainConfig:
        """The supernet's recipe."""
        return TrainConfig.from_dict(dict(self.result("plan")["config"]))

    @property
    def left_s(self) -> float | None:
        """Seconds of `--hours` that the finished stages have left; None without a limit."""
        if self.options.hours is None:
            return None
        return 3600 * self.options.hours - sum(done.seconds for done in self.stages.done.values())

    def step_cost(self, arch: Arch) -> float:
        """Seconds of a training step of one architecture, as the plan's measurements have it."""
        cost = StepCost(**self.result("plan")["costs"]["step"])
        model = self.network()
        return cost.of(gflops(model.config, [arch])[arch.id])

    def network(self) -> RFDETR:
        """The trained supernet."""
        return model_from_checkpoint(self.folder("train"))

    def table(self) -> "pd.DataFrame":
        """The search's table."""
        import pandas as pd

        return pd.read_csv(self.folder("search") / "table.csv")

    @property
    def chosen(self) -> list[dict[str, Any]]:
        """The chosen networks as `choose` left them."""
        return list(self.result("choose")["networks"])

    def tuned(self, arch: str) -> dict[str, Any] | None:
        """The fine-tuning's row of a network, where it was better."""
        rows = self.result("fine-tune")["networks"] if self.has("fine-tune") else []
        return next((row for row in rows if row["arch"] == arch and row["better"]), None)

    def final(self, arch: str) -> tuple[RFDETR, Arch, Path]:
        """(network, architecture, kept test detections) that are handed over for a chosen one."""
        name = f"test-{arch}.json"
        if self.tuned(arch) is None:
            return self.network(), Arch.parse(arch), self.folder("choose") / name
        folder = self.folder("fine-tune")
        return model_from_checkpoint(folder / arch), Arch.parse(arch), folder / name

    def test_scores(self, model: RFDETR, arch: Arch, path: Path) -> dict[str, Any]:
        """Numbers on the test split (`choose.scored`); the detections are kept in `path`."""
        numbers, result = scored(model, self.data("test"), arch, self.metric, self.options.seed)
        keep_detections(path, result)
        return numbers


def _objects(dataset: DetectionDataset) -> bool:
    return any(not annotation.get("iscrowd") for annotation in dataset.coco["annotations"])
