"""The public names: what a user finds in `rfdetr`, and a whole job with them."""

import json
import subprocess
import sys

import numpy as np
import pytest
from training_case import MODEL

import rfdetr
from rfdetr import Arch, UserError


def test_the_listing_holds_the_public_names_alone():
    names = dir(rfdetr)
    assert len(names) == len(set(names)) and sorted(rfdetr.__all__) == names
    assert not [name for name in names if name.startswith("_") and name != "__version__"]
    assert not {"Any", "TYPE_CHECKING", "import_module"} & set(names)
    for name in rfdetr.__all__:
        value = getattr(rfdetr, name)
        assert not callable(value) or value.__doc__.strip(), name
    with pytest.raises(AttributeError, match="no attribute 'fit'"):
        _ = rfdetr.fit


def test_names_do_not_hide_packages_and_importing_is_light():
    code = (
        "import sys, rfdetr; assert 'torch' not in sys.modules and 'numpy' not in sys.modules;"
        "import rfdetr.export, rfdetr.search; rfdetr.export_onnx, rfdetr.evaluate_grid, rfdetr.train;"
        "assert rfdetr.export is sys.modules['rfdetr.export'];"
        "assert rfdetr.search is sys.modules['rfdetr.search']"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_job_from_data_to_the_deployed_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    train, val = (rfdetr.load_dataset("digits", split, size=8, canvas=64) for split in ("train", "val"))
    sizes = {k: v for k, v in MODEL.items() if k != "num_classes"}
    model = rfdetr.RFDETR(categories=train.category_ids, **sizes)
    config = rfdetr.TrainConfig(steps=2, batch_size=2, precision="fp32")
    rfdetr.train(model, train, Arch.parse("r64-p8-w1-d2-q8"), config, "run", progress=False)
    model = rfdetr.load("run")
    assert model.config.categories == train.category_ids
    result = rfdetr.evaluate(model, val)  # the architecture that was trained
    assert result.ap == rfdetr.evaluate(model, val, "r64-p8-w1-d2-q8").ap
    artifact = rfdetr.export_onnx(model, "r64-p8-w1-d1-q8", "net.onnx")
    deployed = rfdetr.load_exported(artifact.file)
    expected = rfdetr.evaluate(model, val, "r64-p8-w1-d1-q8")
    assert rfdetr.evaluate(deployed, val).ap == pytest.approx(expected.ap, abs=1e-3)
    picture = val[0][0]
    one, same = deployed.predict_one(picture, 0.0), model.predict_one(picture, "r64-p8-w1-d1-q8", 0.0)
    np.testing.assert_allclose(one.boxes, same.boxes, atol=0.05)
    assert len(deployed.predict([picture, picture])) == 2
    space = rfdetr.SearchSpace((64,), (8,), (1,), (1, 2), (4, 8))
    assert len(rfdetr.evaluate_grid(model, val, space)) == 4
    assert json.loads(artifact.metadata["categories"])["names"] == list(train.class_names)
    with pytest.raises(UserError, match=r"is an exported file, .*load_exported"):
        rfdetr.load(artifact.file)
