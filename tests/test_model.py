import pytest
import torch
from conftest import TINY, TINY_ARCH, scramble
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import rfdetr
from rfdetr import RFDETR, Arch, ArchError, UserError
from rfdetr.arch import effective
from rfdetr.data.categories import CategoryMap
from rfdetr.model.outputs import Output, Prediction
from rfdetr.model.postprocess import cxcywh_to_xyxy, postprocess
from rfdetr.model.queries import grid_proposals

reuse = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@st.composite
def legal_archs(draw):
    """Any legal architecture with patch sizes 8..32 (unseen ones too) and at most 12 tokens a side."""
    patch = draw(st.integers(8, 32))
    windows = draw(st.sampled_from([1, 2, 4]))
    grid = windows * draw(st.integers(1, 12 // windows))
    return effective(grid * patch, patch, windows, draw(st.integers(0, 2)), draw(st.integers(1, 10)))


def close(a, b, tolerance=1e-9):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("kind", ["tiny", "tiny_segmenter"])
@reuse
@given(arch=legal_archs(), seed=st.integers(0, 100))
def test_subnet_equals_the_supernet(kind, request, arch, seed):
    model = request.getfixturevalue(kind)
    images = torch.randn(
        2, 3, arch.resolution, arch.resolution, generator=torch.Generator().manual_seed(seed)
    ).double()
    sub = model.subnet(arch)
    with torch.no_grad():
        full, cut = model(images, arch), sub(images)
    close(cut.logits, full.logits)
    close(cut.boxes, full.boxes)
    close(cut.projector, full.projector)
    assert cut.logits.shape == (2, arch.queries, 4)
    if model.config.segmentation:
        side = arch.resolution // 4
        assert cut.masks is not None
        assert cut.masks.shape == (2, arch.queries, side, side)
        close(cut.masks, full.masks)


@pytest.mark.parametrize("kind", ["tiny", "tiny_segmenter"])
def test_a_cut_decoder_equals_that_layer_of_the_full_one(kind, request):
    model = request.getfixturevalue(kind)
    images = torch.randn(2, 3, 64, 64).double()
    with torch.no_grad():
        full = model(images, TINY_ARCH)
        for depth in range(TINY_ARCH.decoder_layers + 1):
            cut = model(images, TINY_ARCH.replace(decoder_layers=depth))
            expected = full.layers[depth - 1] if depth else full.encoder
            close(cut.logits, expected.logits)
            close(cut.boxes, expected.boxes)
            if model.config.segmentation:
                close(cut.masks, expected.masks)


def test_groups_do_not_see_each_other(tiny):
    """In training the first group's queries give what inference gives, whatever the other groups hold."""
    images = torch.randn(1, 3, 64, 64).double()
    with torch.no_grad():
        expected = tiny(images, TINY_ARCH)
        training = tiny.train()(images, TINY_ARCH)
    assert training.logits.shape == (1, 20, 4)
    close(training.logits[:, :10], expected.logits)
    close(training.boxes[:, :10], expected.boxes)
    close(training.encoder.logits[:, :10], expected.encoder.logits)
    assert not torch.allclose(training.logits[:, 10:], expected.logits)


def test_batches_are_independent(tiny):
    images = torch.randn(3, 3, 64, 64).double()
    with torch.no_grad():
        together = tiny(images, TINY_ARCH)
        alone = tiny(images[1:2], TINY_ARCH)
    close(together.logits[1:2], alone.logits)


def test_windows_change_the_result_only_where_blocks_are_windowed():
    """With every block global, windows only add copies of the class token; with one window nothing
    changes.
    """
    torch.manual_seed(0)
    model = scramble(RFDETR(**{**TINY, "feature_layers": (1, 2, 3, 4)}).double()).eval()
    assert [model.backbone.is_global(i) for i in range(4)] == [False, True, True, True]
    images = torch.randn(1, 3, 64, 64).double()
    with torch.no_grad():
        one, two = (model(images, TINY_ARCH.replace(windows=w)) for w in (1, 2))
    assert not torch.allclose(one.logits, two.logits)


def test_queries_are_ranked_by_their_best_class(tiny):
    with torch.no_grad():
        output = tiny(torch.randn(2, 3, 64, 64).double(), TINY_ARCH)
    best = output.encoder.logits.amax(-1)
    assert (best[:, :-1] >= best[:, 1:]).all()


def test_proposals_at_the_border_of_a_fine_grid_are_unusable():
    proposals, usable = grid_proposals(60, torch.float64, torch.device("cpu"))
    inside = usable.reshape(60, 60)
    assert not inside[0].any()
    assert not inside[:, -1].any()
    assert inside[1:-1, 1:-1].all()
    assert (proposals[~usable[:, 0]] == 0).all()
    assert grid_proposals(49, torch.float64, torch.device("cpu"))[1].all()


def test_nothing_is_remembered_between_calls(tiny):
    images, other = torch.randn(1, 3, 64, 64).double(), torch.randn(1, 3, 96, 96).double()
    before = {name: tensor.clone() for name, tensor in tiny.state_dict().items()}
    with torch.no_grad():
        first = tiny(images, TINY_ARCH).logits
        tiny(other, Arch(96, 12, 4, 1, 5))
        tiny.subnet(Arch(96, 12, 4, 1, 5))
        again = tiny(images, TINY_ARCH).logits
    assert torch.equal(first, again)
    assert all(torch.equal(tensor, before[name]) for name, tensor in tiny.state_dict().items())


@pytest.mark.parametrize(
    ("arch", "word"), [(Arch(64, 8, 2, 3, 10), "decoder layers"), (Arch(64, 8, 2, 2, 11), "queries")]
)
def test_an_architecture_larger_than_the_network_is_refused(tiny, arch, word):
    with pytest.raises(ArchError, match=word) as caught:
        tiny(torch.zeros(1, 3, 64, 64).double(), arch)
    tiny.config.check(caught.value.neighbours[0])


def test_wrong_image_size_is_explained(tiny):
    with pytest.raises(ValueError, match="resized to a square"):
        tiny(torch.zeros(1, 3, 64, 96).double(), TINY_ARCH)
    with pytest.raises(ArchError, match="no default architecture"):
        tiny(torch.zeros(1, 3, 64, 64).double())


@pytest.mark.parametrize(
    "change",
    [
        {"heads": 5},
        {"cross_heads": 3},
        {"feature_layers": (5,)},
        {"feature_layers": ()},
        {"class_names": ("a",)},
        {"colour": 1},
        {"queries": 0},
    ],
)
def test_impossible_sizes_are_refused(change):
    with pytest.raises(UserError):
        RFDETR(**{**TINY, **change})


def test_unknown_preset_is_refused():
    with pytest.raises(UserError, match="nano"):
        rfdetr.build("pico")


def test_every_preset_has_the_published_number_of_parameters():
    with torch.device("meta"):
        for name, preset in rfdetr.PRESETS.items():
            millions = sum(p.numel() for p in rfdetr.build(name).parameters()) / 1e6
            assert millions == pytest.approx(preset.params_m, abs=0.1), name


def test_initial_class_probability_is_the_focal_prior():
    torch.manual_seed(0)
    model = RFDETR(**TINY).eval()
    with torch.no_grad():
        probability = model(torch.randn(2, 3, 64, 64), TINY_ARCH).logits.sigmoid().mean()
    assert 0.003 < probability < 0.05


def test_config_round_trips_through_plain_values():
    config = rfdetr.ModelConfig(
        num_classes=3, categories=CategoryMap((0, 7), ("a", "b"), (1, 2)), default_arch=Arch(queries=100)
    )
    import json

    assert rfdetr.ModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_corners_of_boxes():
    boxes = torch.rand(50, 4, dtype=torch.float64)
    left, top, right, bottom = cxcywh_to_xyxy(boxes).unbind(-1)
    close(torch.stack([(left + right) / 2, (top + bottom) / 2, right - left, bottom - top], -1), boxes)


def test_postprocess_orders_pairs_and_scales_boxes():
    logits = torch.tensor([[[3.0, -1.0], [2.0, 2.5]]])
    boxes = torch.tensor([[[0.5, 0.5, 0.2, 0.4], [0.25, 0.5, 0.5, 1.0]]])
    output = Output(Prediction(logits, boxes), torch.zeros(1, 1, 1, 1))
    (found,) = postprocess(output, [(100, 200)], top_k=3)
    assert found["labels"].tolist() == [0, 1, 0]
    assert found["scores"].tolist() == pytest.approx([0.9526, 0.9241, 0.8808], abs=1e-4)
    torch.testing.assert_close(found["boxes"][0], torch.tensor([80.0, 30.0, 120.0, 70.0]))
    torch.testing.assert_close(found["boxes"][1], torch.tensor([0.0, 0.0, 100.0, 100.0]))
    assert found["masks"] is None
    assert len(postprocess(output, [(100, 200)])[0]["scores"]) == 2
    with pytest.raises(ValueError, match="image sizes"):
        postprocess(output, [])


def test_postprocess_masks_have_the_image_size(tiny_segmenter):
    with torch.no_grad():
        output = tiny_segmenter(torch.randn(1, 3, 64, 64).double(), TINY_ARCH)
    (found,) = postprocess(output, [(33, 47)])
    assert found["masks"].shape == (10, 33, 47)
    assert found["masks"].dtype == torch.bool
