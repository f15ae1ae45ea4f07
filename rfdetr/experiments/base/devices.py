"""Which profiles a machine without a GPU can run: said before anything is computed."""

from rfdetr.errors import UserError
from rfdetr.experiments.base.profiles import Profile

NEED_GPU = ("gpu", "t4")
"""Profiles that train a network of the paper's size in chapters 04, 05 and B."""


def require(profile: Profile) -> None:
    """UserError saying what would be trained, where the profile needs a GPU and torch sees none."""
    if profile.name not in NEED_GPU:
        return
    import torch

    if torch.cuda.is_available():
        return
    recipe = profile.recipe
    images = recipe.train["batch_size"] * recipe.train.get("accumulate", 1)
    raise UserError(
        f"with the profile {profile.name} this chapter trains the paper's network for"
        f" {recipe.train['steps']:,} steps of {images} images of up to"
        f" {max(recipe.training.resolutions)} px and evaluates {len(recipe.search.distinct()):,} sub-networks"
        " of it, which needs an NVIDIA GPU; torch sees none here (torch.cuda.is_available() is False)."
        " Run it with the profile cpu, or install torch's build for your driver (pytorch.org)"
    )
