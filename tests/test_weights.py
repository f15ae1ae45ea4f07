import pytest
import torch
from conftest import TINY_ARCH

from rfdetr import UserError
from rfdetr.model.weights import with_classes


def test_new_classes_start_at_the_prior_and_the_rest_is_copied(tiny):
    before = {k: v.clone() for k, v in tiny.state_dict().items()}
    new, report = with_classes(tiny, 7, [f"class {i}" for i in range(7)])
    assert new.config.num_classes == 7 and new.config.categories.names[6] == "class 6"
    assert all(torch.equal(value, tiny.state_dict()[key]) for key, value in before.items())
    fresh = {e.target for e in report.initialised}
    assert fresh == {k for k in before if k.startswith(("class_head.", "selection.classes."))}
    state = new.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in before.items() if key not in fresh)
    assert {e.target for e in report.loaded} | fresh == set(state)
    with torch.no_grad():
        new.class_head.weight.zero_()
        probability = new(torch.randn(1, 3, 64, 64, dtype=torch.float64), TINY_ARCH).logits.sigmoid()
    torch.testing.assert_close(probability, torch.full_like(probability, 0.01))
    # Nothing is shared: training the new network leaves the old one alone.
    with torch.no_grad():
        for parameter in new.parameters():
            parameter.zero_()
    assert all(torch.equal(value, tiny.state_dict()[key]) for key, value in before.items())


def test_names_must_fit(tiny):
    with pytest.raises(UserError, match="those of 2 classes, the network has 3"):
        with_classes(tiny, 3, ["a", "b"])
    with pytest.raises(UserError, match="at least one class"):
        with_classes(tiny, 0)
