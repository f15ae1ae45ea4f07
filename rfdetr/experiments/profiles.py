"""The four sizes at which every chapter runs. One place, so that no chapter has sizes of its own."""

from dataclasses import dataclass
from types import MappingProxyType

from rfdetr.errors import UserError


@dataclass(frozen=True)
class Profile:
    """How much a chapter computes.

    meaningful   False where the numbers only show that the code runs; pages made with it say so.
    """

    name: str
    description: str
    meaningful: bool = True


PROFILES: MappingProxyType[str, Profile] = MappingProxyType(
    {
        profile.name: profile
        for profile in (
            Profile(
                "smoke",
                "every chapter in minutes, to test that it runs; its numbers carry no meaning",
                meaningful=False,
            ),
            Profile("cpu", "a small supernet on embedded data, on two CPU cores, without downloads"),
            Profile(
                "gpu", "the paper's architecture sizes on one data-centre GPU, embedded and small real data"
            ),
            Profile("t4", "official checkpoints, COCO val2017 and TensorRT on an NVIDIA T4"),
        )
    }
)
DEFAULT_PROFILE = "cpu"


def get_profile(name: str) -> Profile:
    """The profile of that name; UserError listing the names otherwise."""
    if name not in PROFILES:
        raise UserError(f"unknown profile {name!r}; choose one of {', '.join(PROFILES)}")
    return PROFILES[name]
