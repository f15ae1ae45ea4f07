"""Outputs equal those of other implementations of the same network, in float64."""

import json
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import TINY
from published import published_shapes, published_state, repeatable_weight

import rfdetr
from rfdetr import Arch, ModelConfig
from rfdetr.model.config import preset_config
from rfdetr.model.official import from_published
from rfdetr.model.published_names import from_transformers
from rfdetr.sources import package_root

DATA = package_root() / "rfdetr" / "paper" / "parity"


def shapes_of(name):
    return json.loads((DATA / f"{name}.keys.json").read_text())


@pytest.mark.parametrize("name", ["nano", "seg-nano"])
def test_published_outputs(name):
    """The published package's outputs for repeatable weights and one image; see paper/parity/README.md."""
    reference = np.load(DATA / f"{name}.npz")
    state = {key: repeatable_weight(key, shape) for key, shape in shapes_of(name).items() if math.prod(shape)}
    model = rfdetr.load_official(name, state)
    side = model.config.default_arch.resolution
    images = torch.randn((1, 3, side, side), generator=torch.Generator().manual_seed(0)).double()
    with torch.no_grad():
        output = model(images)
    found = {
        "logits": output.logits,
        "boxes": output.boxes,
        "enc_logits": output.encoder.logits,
        "enc_boxes": output.encoder.boxes,
        "projector": output.projector[:, ::16],
    }
    for index, layer in enumerate(output.layers[:-1]):
        found |= {f"aux{index}_logits": layer.logits, f"aux{index}_boxes": layer.boxes}
    if output.masks is not None:
        found["masks"] = output.masks[:, :8]
    assert set(found) == set(reference.files)
    for key, value in found.items():
        scale = np.abs(reference[key]).max() if key == "masks" else 1.0
        np.testing.assert_allclose(value.numpy() / scale, reference[key] / scale, atol=1e-4, err_msg=key)


@pytest.mark.parametrize("name", ["nano", "seg-nano"])
def test_every_published_tensor_has_a_place(name):
    assert {k: tuple(s) for k, s in shapes_of(name).items()} == published_shapes(preset_config(name))


def transformers_model(config, arch, segmentation=False):
    """The Transformers package's own implementation with the same sizes, random weights, evaluation mode,
    float64.
    """
    transformers = pytest.importorskip("transformers", minversion="5.23")
    features = [f"stage{i}" for i in config.feature_layers]
    settings = transformers.RfDetrConfig(
        backbone_config={
            "model_type": "rf_detr_dinov2",
            "hidden_size": config.embed_dim,
            "num_attention_heads": config.heads,
            "num_hidden_layers": config.depth,
            "image_size": config.position_grid * config.base_patch,
            "patch_size": config.base_patch,
            "num_windows": arch.windows,
            "out_features": features,
            "window_block_indexes": [i for i in range(config.depth) if i not in config.feature_layers],
            "apply_layernorm": True,
        },
        d_model=config.hidden_dim,
        intermediate_size=4 * config.hidden_dim,
        decoder_layers=arch.decoder_layers,
        num_queries=arch.queries,
        group_detr=config.groups,
        num_labels=config.num_classes,
        decoder_ffn_dim=config.ffn_dim,
        decoder_n_points=config.points,
        decoder_self_attention_heads=config.self_heads,
        decoder_cross_attention_heads=config.cross_heads,
    )
    kind = (
        transformers.RfDetrForInstanceSegmentation if segmentation else transformers.RfDetrForObjectDetection
    )
    torch.manual_seed(0)
    model = kind(settings).double().eval()
    for name, module in model.named_modules():
        # The published convolutions' norms have eps 1e-6; these classes have 1e-5, too far off for this
        # comparison.
        if ".projector." in name and hasattr(module, "eps"):
            module.eps = 1e-6
    return model


CASES = [
    ("small windows", Arch(64, 8, 4, 2, 10), {}),
    ("one window, one layer, few queries", Arch(48, 8, 1, 1, 5), {}),
    ("other global blocks, dead last block", Arch(64, 8, 2, 2, 10), {"feature_layers": (1, 3)}),
    ("more tokens than valid proposals", Arch(104, 2, 2, 1, 10), {"base_patch": 2, "position_grid": 52}),
    ("positions of another grid", Arch(80, 8, 2, 2, 10), {"position_grid": 7}),
    ("larger heads", Arch(64, 8, 2, 2, 10), {"hidden_dim": 64, "cross_heads": 8, "points": 4}),
]


@pytest.mark.parametrize("segmentation", [False, True])
@pytest.mark.parametrize("title, arch, sizes", CASES, ids=[case[0] for case in CASES])
def test_equal_to_the_transformers_implementation(title, arch, sizes, segmentation):
    """Batch of two, weights of their state dict read by our loader's renaming. Their sine embedding is
    float32.
    """
    knobs = {"decoder_layers": arch.decoder_layers, "queries": arch.queries, "default_arch": arch}
    config = ModelConfig(**{**TINY, **sizes, **knobs, "segmentation": segmentation})
    theirs = transformers_model(config, arch, segmentation)
    published, origin = from_transformers(theirs.state_dict())
    weights = published_state(config)
    # Tokens without a valid proposal all have one score; with this sign it is too low to be kept, so there
    # are no ties.
    weights["transformer.enc_output.0.bias"] *= -1.0
    with torch.no_grad():
        for name, keys in origin.items():
            for key, part in zip(keys, weights[name].chunk(len(keys)), strict=True):
                theirs.get_parameter(key).copy_(part)
    published, _ = from_transformers(theirs.state_dict())
    assert set(published) | {"_kp_active_mask"} == set(weights)
    ours = rfdetr.RFDETR(**config.to_dict()).double().eval()
    ours.load_state_dict(from_published(published, config))

    shape = (2, 3, arch.resolution, arch.resolution)
    images = torch.randn(shape, generator=torch.Generator().manual_seed(1)).double()
    with torch.no_grad():
        output, expected = ours(images), theirs(pixel_values=images)
    torch.testing.assert_close(output.logits, expected.logits, atol=1e-5, rtol=0)
    torch.testing.assert_close(output.boxes, expected.pred_boxes, atol=1e-5, rtol=0)
    if segmentation:
        masks = expected.pred_masks
        torch.testing.assert_close(output.masks, masks, atol=1e-5 * float(masks.abs().max()), rtol=0)
    else:
        torch.testing.assert_close(output.encoder.logits, expected.enc_outputs_class, atol=1e-5, rtol=0)
        torch.testing.assert_close(output.projector, expected.backbone_features, atol=1e-5, rtol=0)


OTHER_KNOBS = [
    Arch(96, 8, 4, 1, 6),  # resolution, windows, depth and queries
    Arch(96, 12, 2, 2, 10),  # an enlarged kernel
    Arch(48, 6, 1, 2, 10),  # a shrunken one
]


@pytest.mark.parametrize("segmentation", [False, True])
@pytest.mark.parametrize("arch", OTHER_KNOBS, ids=str)
def test_a_fixed_size_network_as_a_supernet_equals_their_network_of_that_size(arch, segmentation):
    """Their network has other knobs and weights cut by hand; its kernel solves the least squares that define
    the resize.
    """
    fixed = Arch(64, 8, 2, 2, 10)
    config = ModelConfig(**TINY, default_arch=fixed, segmentation=segmentation)
    whole = published_state(config)
    whole["transformer.enc_output.0.bias"] *= -1.0  # no ties, as above
    supernet = rfdetr.RFDETR(**config.to_dict()).double().eval()
    supernet.load_state_dict(from_published(whole, config))

    sizes = {"decoder_layers": arch.decoder_layers, "queries": arch.queries, "base_patch": arch.patch_size}
    theirs = transformers_model(config.replace(**sizes, groups=1, default_arch=arch), arch, segmentation)
    _, origin = from_transformers(theirs.state_dict())
    with torch.no_grad():
        for name, keys in origin.items():
            weight = whole[name]
            if name.endswith("projection.weight"):
                weight = resized_by_least_squares(weight, arch.patch_size)
            if name in ("query_feat.weight", "refpoint_embed.weight"):
                weight = weight[: arch.queries]
            for key, part in zip(keys, weight.chunk(len(keys)), strict=True):
                theirs.get_parameter(key).copy_(part)

    shape = (2, 3, arch.resolution, arch.resolution)
    images = torch.randn(shape, generator=torch.Generator().manual_seed(1)).double()
    with torch.no_grad():
        expected = theirs(pixel_values=images)
        for output in (supernet(images, arch), supernet.subnet(arch)(images)):
            torch.testing.assert_close(output.logits, expected.logits, atol=1e-5, rtol=0)
            torch.testing.assert_close(output.boxes, expected.pred_boxes, atol=1e-5, rtol=0)
            if segmentation:
                scale = float(expected.pred_masks.abs().max())
                torch.testing.assert_close(output.masks, expected.pred_masks, atol=1e-5 * scale, rtol=0)


def resized_by_least_squares(kernel, patch):
    """The kernel that gives every resized patch the embedding of the patch, solved for all pixels at once."""
    side = kernel.shape[-1]
    pixels = torch.eye(side * side, dtype=torch.float64).reshape(-1, 1, side, side)
    options = {"mode": "bicubic", "antialias": True, "align_corners": False}
    resized = F.interpolate(pixels, size=(patch, patch), **options).flatten(1)
    solution = torch.linalg.lstsq(resized, kernel.flatten(2).flatten(0, 1).mT, driver="gelsd").solution
    return solution.mT.reshape(*kernel.shape[:2], patch, patch)
