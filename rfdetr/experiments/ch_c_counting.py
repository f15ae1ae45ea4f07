"""Appendix C and Table 9: what a FLOPs number counts, and which convention each printed number follows."""

from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from rfdetr.arch import PRESETS
from rfdetr.benchmark import flops
from rfdetr.benchmark.flops import FlopCount, analytic, count
from rfdetr.model.config import preset_config
from rfdetr.paper import tables
from rfdetr.peers import catalogue as peers
from rfdetr.peers.counting import recount as recount_peer

FAMILY = ("nano", "small", "medium", "large")
SEGMENTERS = ("seg-nano", "seg-small", "seg-medium", "seg-large", "seg-xlarge", "seg-2xlarge")


@cache
def public_package() -> dict[str, Any]:
    """GFLOPs of the published detectors as their public package runs them (`public_package.yaml`). Do not
    modify it.
    """
    import yaml

    path = Path(flops.__file__).with_name("public_package.yaml")
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def default_counter(name: str = "nano") -> pd.DataFrame:
    """What torch's `FlopCounterMode` reports for a real forward pass on this CPU, and with attention written
    out.

    Columns: counter, gflops, missing (% against the formula with attention). The network has random weights.
    """
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    import rfdetr

    network = rfdetr.build(name).eval().requires_grad_(False)
    side = PRESETS[name].arch.resolution
    images = torch.zeros(1, 3, side, side)
    expected = analytic(network).gflops
    rows = []
    for label, backends in (
        ("default: fused attention", None),
        ("attention as matrix products", [SDPBackend.MATH]),
    ):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            if backends is None:
                network(images, every_layer=False)
            else:
                with sdpa_kernel(backends):
                    network(images, every_layer=False)
        gflops = counter.get_total_flops() / 1e9
        rows.append({"counter": label, "gflops": gflops, "missing": 100 * (1 - gflops / expected)})
    return pd.DataFrame(rows)


def conventions(names: tuple[str, ...] = FAMILY) -> pd.DataFrame:
    """One network, five numbers. Columns: configuration, printed, package, then GFLOPs and GMACs under each
    convention.

    package: what the public package counts today (a record); published / published_no_attention: the plain
    call that the print fits; deployed / deployed_no_attention: the exported graph; gmacs:
    multiply-accumulates of the deployed graph.
    """
    rows = []
    for name in names:
        config = preset_config(name)
        published, deployed = analytic(config, convention="published"), analytic(config)
        rows.append(
            {
                "configuration": name,
                "printed": PRESETS[name].gflops,
                "package": public_package()["with_attention"].get(name),
                "published": published.gflops,
                "published_no_attention": published.gflops_no_attention,
                "deployed": deployed.gflops,
                "deployed_no_attention": deployed.gflops_no_attention,
                "gmacs": deployed.gmacs,
            }
        )
    return pd.DataFrame(rows)


def mask_conventions(names: tuple[str, ...] = SEGMENTERS) -> pd.DataFrame:
    """What the segmentation numbers of Tables 3 and 13 count, attention included everywhere.

    Columns: configuration, printed, published (masks of every decoder layer and of the selected tokens),
    package (a record), deployed (masks of the last layer only), not_deployed (% of the print that an exported
    network leaves out).
    """
    rows = []
    for name in names:
        printed, deployed = PRESETS[name].gflops, analytic(preset_config(name)).gflops
        assert printed is not None
        rows.append(
            {
                "configuration": name,
                "printed": printed,
                "published": analytic(preset_config(name), convention="published").gflops,
                "package": public_package()["with_attention"].get(name),
                "deployed": deployed,
                "not_deployed": 100 * (1 - deployed / printed),
            }
        )
    return pd.DataFrame(rows)


def lw_detr_heads() -> pd.DataFrame:
    """LW-DETR's printed GFLOPs against the records of this project.

    Columns: size, printed, every_layer (heads of every decoder layer, attention counted), last_layer (as
    deployed), no_attention (as deployed, attention left out).
    """
    rows = [
        {
            "size": entry["size"],
            "printed": entry["published"]["gflops"],
            "every_layer": entry["variants"]["all_layer_heads_with_attention"],
            "last_layer": entry["gflops_with_attention"],
            "no_attention": entry["gflops_no_attention"],
        }
        for entry in peers.entries()
        if entry["name"] == "LW-DETR"
    ]
    return pd.DataFrame(rows)


def formula_check(names: tuple[str, ...] = (*FAMILY, "seg-nano", "seg-medium")) -> pd.DataFrame:
    """The closed formula against torch's counter. Columns: configuration, counter, formula (GFLOPs),
    difference (%).
    """
    rows = []
    for name in names:
        config = preset_config(name)
        counted, formula = count(config).gflops, analytic(config).gflops
        rows.append((name, counted, formula, 100 * (formula / counted - 1)))
    return pd.DataFrame(rows, columns=["configuration", "counter", "formula", "difference"])


def attention_share(names: tuple[str, ...] = tuple(PRESETS)) -> pd.DataFrame:
    """Attention products in the deployed graph: the part that a CPU count leaves out. Columns: configuration,
    tokens, windows, share (%).
    """
    rows = []
    for name in names:
        counted: FlopCount = analytic(preset_config(name))
        arch = PRESETS[name].arch
        share = 100 * (1 - counted.gflops_no_attention / counted.gflops)
        rows.append((name, arch.tokens, arch.windows, share))
    return pd.DataFrame(rows, columns=["configuration", "tokens", "windows", "share"])


def table_9() -> pd.DataFrame:
    """Table 9 against the measured counts of this project's records.

    Columns: model, size, counter (reported, calflops, flopcountermode), printed, measured (GFLOPs),
    difference (%), convention (what the measured number counts).
    """
    printed = tables.table(9)
    rows = []
    for entry in peers.document()["table_9"]:
        name = {"YOLO11": "YOLOv11"}.get(entry["name"], entry["name"])
        row = printed[(printed.model == name) & (printed["size"] == entry["size"])].iloc[0]
        for counter in ("reported", "calflops", "flopcountermode"):
            measured = entry["measured"].get(counter)
            rows.append(
                {
                    "model": name,
                    "size": entry["size"],
                    "counter": counter,
                    "printed": float(row[counter]),
                    "measured": measured,
                    "difference": None if measured is None else 100 * (measured / float(row[counter]) - 1),
                    "convention": entry["convention"],
                }
            )
    return pd.DataFrame(rows)


def recount(models: tuple[tuple[str, str], ...] = (("LW-DETR", "S"), ("D-FINE", "S"))) -> pd.DataFrame:
    """Build peers again and compare with the committed records; without the package the recount columns are
    missing.

    Columns: model, size, params_m and gflops (committed), params_again and gflops_again, same (within 0.1 %).
    """
    rows: list[dict[str, Any]] = []
    for name, size in models:
        entry = peers.find(name, size)
        again = recount_peer(peers.key(entry), variants=False) if peers.available() else {}
        gflops = again.get("gflops_with_attention")
        rows.append(
            {
                "model": name,
                "size": size,
                "params_m": entry["params_m"],
                "gflops": entry["gflops_with_attention"],
                "params_again": again.get("params_m"),
                "gflops_again": gflops,
                "same": None if gflops is None else abs(gflops / entry["gflops_with_attention"] - 1) < 1e-3,
            }
        )
    return pd.DataFrame(rows)
