"""The interface of all runtimes: load an artifact, run it, time it."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from rfdetr.export.artifact import Artifact

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class RuntimeInfo:
    """What executes an artifact.

    precision   as executed, not as asked for
    gpu         UUID of the GPU that executes, "" if it is not known which one does, None on a processor
    """

    runtime: str
    version: str
    device: str
    precision: str
    driver: str = ""
    gpu: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


class Runtime(ABC):
    """One loaded artifact. `bind` puts inputs on the device, `infer` computes, `fetch` brings outputs back.

    The three are apart because a latency counts `infer` only and states the copies separately. `run` is all
    three.
    """

    artifact: Artifact
    info: RuntimeInfo

    @classmethod
    @abstractmethod
    def load(cls, artifact: Artifact, **options: Any) -> Self:
        """Load an artifact. Raises UserError naming the missing extra or device."""

    @abstractmethod
    def bind(self, inputs: Arrays) -> None:
        """Copy the inputs to where `infer` reads them."""

    @abstractmethod
    def infer(self) -> None:
        """One forward pass over the bound inputs; returns when it is finished."""

    @abstractmethod
    def fetch(self) -> dict[str, np.ndarray]:
        """Outputs of the last `infer`, on the host."""

    def device_ms(self) -> float | None:
        """Duration of the last `infer` from device events, ms; None where the host's clock is the right
        one.
        """
        return None

    @property
    def has_copies(self) -> bool:
        """Whether host and device memory are different, so that `bind` and `fetch` cost something."""
        return False

    def run(self, inputs: Arrays) -> dict[str, np.ndarray]:
        """Inputs to outputs, copies included."""
        self.bind(inputs)
        self.infer()
        return self.fetch()

    def close(self) -> None:  # noqa: B027 (most runtimes have nothing to give back)
        """Give memory back. The runtime cannot be used afterwards."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
