"""Export a checkpoint in the published layout with the published package itself, to ONNX.

    PYTHON benchmarks/published_export.py CHECKPOINT FOLDER

PYTHON is that of an environment where the published package is installed, and not this one: both are called
`rfdetr`. Nothing of this repository is imported. The checkpoint is one that `export --format published`
wrote; it holds the arguments that the constructor needs. Prints the file's path as its last line.
"""

import sys
from pathlib import Path

# A script's folder comes first on the path, and the package is not to be found beside it.
sys.path = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).resolve().parent]

import torch  # noqa: E402

import rfdetr  # noqa: E402


def main() -> None:
    weights, folder = sys.argv[1:]
    options = vars(torch.load(weights, map_location="cpu", weights_only=False)["args"])
    kind = rfdetr.RFDETRSegNano if options["segmentation_head"] else rfdetr.RFDETRNano
    sizes = {name: value for name, value in options.items() if name != "class_names"}
    print(kind(pretrain_weights=weights, **sizes).export(output_dir=folder, verbose=False))


if __name__ == "__main__":
    main()
