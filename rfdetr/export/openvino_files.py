"""OpenVINO models (.xml and .bin) that say themselves what they are: their metadata are in the file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rfdetr.errors import UserError

_OURS = "rfdetr"
"""Under this name of the model's runtime information are the texts of `Artifact.metadata`."""


def load_openvino() -> Any:
    """The module `openvino`. Raises UserError naming the extra when it is missing."""
    try:
        import openvino
    except ImportError as error:
        raise UserError("this needs OpenVINO: pip install 'rf-detr-nas-companion[openvino]'") from error
    return openvino


def save(model: Any, path: Path, metadata: Mapping[str, str]) -> None:
    """Write a model with its metadata; weights stay as they are."""
    for name, value in metadata.items():
        model.set_rt_info(value, [_OURS, name])
    load_openvino().save_model(model, str(path), compress_to_fp16=False)


def read(path: Path) -> dict[str, Any]:
    """What a file says: metadata (empty for another maker's), inputs and outputs (name, dtype, shape).

    Raises UserError for what OpenVINO cannot read.
    """
    openvino = load_openvino()
    try:
        model = openvino.Core().read_model(str(path))
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise UserError(f"{path} cannot be read as an OpenVINO model: {reason}") from error
    metadata = {}
    if model.has_rt_info([_OURS]):
        values = model.get_rt_info([_OURS]).astype(dict)
        metadata = {name: value.astype(str) for name, value in values.items()}
    return {"metadata": metadata, "inputs": _specs(model.inputs), "outputs": _specs(model.outputs)}


def _specs(ports: Any) -> list[dict[str, Any]]:
    return [
        {
            "name": port.any_name,
            "dtype": str(port.element_type.to_dtype()),
            "shape": [d.get_length() if d.is_static else f"d{i}" for i, d in enumerate(port.partial_shape)],
        }
        for port in ports
    ]
