"""Table 10 and Appendix D: prompts of an open-vocabulary detector, and what a text costs it.

Everything is computed from the committed counts of GroundingDINO-T (`rfdetr.peers`), so it needs no package;
where the extra is installed the text encoder is counted again.
"""

from typing import TYPE_CHECKING, Any

from rfdetr.peers import catalogue
from rfdetr.peers.counting import PROMPT_TOKENS

if TYPE_CHECKING:
    import pandas as pd

NAME = "groundingdino-t"
COCO_CLASSES = 80
_OTHER_TOKENS = 256


def entry() -> dict[str, Any]:
    """The record of the detector."""
    return catalogue.named(NAME)


def per_token() -> tuple[float, float]:
    """(GFLOPs that each text token adds, GFLOPs at no token), attention counted, 800 x 1333 pixels.

    From the two counted lengths of prompt; between them the cost is linear but for the text's attention to
    itself, which grows with the square and is a fraction of a per cent.
    """
    first = entry()["gflops_with_attention"]
    second = entry()["variants"]["gflops_800x1333_256_tokens"][1]
    slope = (second - first) / (_OTHER_TOKENS - PROMPT_TOKENS)
    return slope, first - slope * PROMPT_TOKENS


def index_tokens(classes: int) -> int:
    """Tokens of a prompt of class indices: one for each number, one for each full stop, one at either end."""
    return 2 * classes + 2


def prompts(classes: tuple[int, ...] = (COCO_CLASSES, 20, 5, 1)) -> "pd.DataFrame":
    """What prompts of class indices cost. Columns: prompt, tokens, gflops, text (GFLOPs of it that the text
    adds), share (%).
    """
    import pandas as pd

    slope, base = per_token()
    lengths = [("COCO's 80 names", PROMPT_TOKENS)]
    lengths += [(f"{n} class {'indices' if n > 1 else 'index'}", index_tokens(n)) for n in classes]
    rows = [(name, tokens, base + slope * tokens, slope * tokens) for name, tokens in lengths]
    frame = pd.DataFrame(rows, columns=["prompt", "tokens", "gflops", "text"])
    return frame.assign(share=100 * frame.text / frame.gflops)


def sides() -> "pd.DataFrame":
    """The detector with its text side, and with the text encoded beforehand.

    Columns: what, params_m, gflops, share (% of the whole's parameters), gflops_share (%).
    """
    import pandas as pd

    record = entry()
    text = record["text_encoder"]
    whole = (record["params_m"], record["gflops_with_attention"])
    encoder = (text["params_m"], text["gflops_with_attention"])
    _, no_text = per_token()
    rows = [
        ("whole, COCO's 80 names", *whole),
        ("text encoder alone", *encoder),
        ("text encoded beforehand", whole[0] - encoder[0], whole[1] - encoder[1]),
        ("fusion of text and picture, and the text in the decoder", None, whole[1] - no_text - encoder[1]),
    ]
    frame = pd.DataFrame(rows, columns=["what", "params_m", "gflops"])
    return frame.assign(share=100 * frame.params_m / whole[0], gflops_share=100 * frame.gflops / whole[1])


def against_rf_detr(names: tuple[str, ...] = ("nano", "medium", "2xlarge")) -> "pd.DataFrame":
    """The same detector beside RF-DETR's sizes. Columns: model, params_m, gflops, ratio (of GroundingDINO's
    GFLOPs to it).
    """
    import pandas as pd

    from rfdetr.benchmark.flops import analytic
    from rfdetr.model.config import preset_config

    rows = []
    for name in names:
        counted = analytic(preset_config(name))
        rows.append((f"RF-DETR {name}", counted.params_deployed / 1e6, counted.gflops))
    rows.append(("GroundingDINO-T", entry()["params_m"], entry()["gflops_with_attention"]))
    frame = pd.DataFrame(rows, columns=["model", "params_m", "gflops"])
    return frame.assign(ratio=entry()["gflops_with_attention"] / frame.gflops)


def recounted() -> dict[str, float]:
    """The text encoder counted again; empty without the package."""
    if not catalogue.available(entry()):
        return {}
    from rfdetr.peers.counting import text_encoder

    return text_encoder(NAME)
