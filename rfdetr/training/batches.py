"""Batches of a step, prepared ahead in background threads."""

from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from torch import Tensor

from rfdetr.arch import Arch, SearchSpace
from rfdetr.data.dataset import DetectionDataset, Target
from rfdetr.data.transforms import augment, preprocess_batch
from rfdetr.training.config import TrainConfig
from rfdetr.training.sampling import augmentation, draw, image_indexes, points_key, step_slots


@dataclass(frozen=True)
class StepData:
    """What one process sees in one step.

    archs: architectures of the step. images[a][m]: [b, 3, R, R] of micro-batch m at the resolution of
    archs[a] (one resolution per batch). targets[m], keys[m]: objects and mask-point keys of micro-batch m.
    """

    archs: list[Arch]
    images: list[list[Tensor]]
    targets: list[list[Target]]
    keys: list[list[tuple[int, ...]]]

    @property
    def objects(self) -> int:
        """Objects in all micro-batches."""
        return sum(len(target.labels) for targets in self.targets for target in targets)


def prepare(
    dataset: DetectionDataset,
    space: SearchSpace,
    config: TrainConfig,
    step: int,
    rank: int = 0,
    world: int = 1,
) -> StepData:
    """The data of one process at one step (0-based): a pure function of its arguments."""
    archs = draw(space, config.seed, step, config.sampling, config.odds, config.anchor)
    slots = step_slots(step, config.batch_size * config.accumulate, rank, world)
    pairs = []
    for position, index in zip(
        slots, image_indexes(config.seed, slots.start, len(slots), len(dataset)), strict=True
    ):
        image, target = dataset[index]
        if config.augment:
            image, target = augment(image, target, augmentation(config.seed, position), flip=dataset.flip)
        pairs.append((image, target))
    parts = [slice(i, i + config.batch_size) for i in range(0, len(slots), config.batch_size)]
    pictures, targets = [image for image, _ in pairs], [target for _, target in pairs]
    return StepData(
        archs,
        [[preprocess_batch(pictures[part], arch.resolution) for part in parts] for arch in archs],
        [targets[part] for part in parts],
        [[points_key(config.seed, position) for position in slots[part]] for part in parts],
    )


def batches(
    dataset: DetectionDataset,
    space: SearchSpace,
    config: TrainConfig,
    first: int,
    rank: int = 0,
    world: int = 1,
) -> Generator[StepData, None, None]:
    """Data of steps first..config.steps-1 in order, `config.workers` + 1 steps ahead of their use.

    An error while a picture is read or painted is raised where that step's data is taken.
    """
    with ThreadPoolExecutor(config.workers, thread_name_prefix="batches") as pool:
        ahead: deque[Future[StepData]] = deque()
        upcoming = iter(range(first, config.steps))
        try:
            for _ in range(first, config.steps):
                while len(ahead) <= config.workers and (following := next(upcoming, None)) is not None:
                    ahead.append(pool.submit(prepare, dataset, space, config, following, rank, world))
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()
