"""What a text costs an open-vocabulary detector in time: with its text encoder and without it, by length of
prompt.

A kept result (`python -m rfdetr results text-cost`), made where the extra `peers` is installed: the detector
in PyTorch on one thread, at the picture's size at which it is counted, variants in turns.
"""

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from rfdetr.errors import UserError
from rfdetr.experiments.base import kept
from rfdetr.experiments.base.parts import Part, Place
from rfdetr.experiments.base.profiles import Profile
from rfdetr.experiments.base.studies import Finished, Study
from rfdetr.experiments.ch_d_class_names import COCO_CLASSES, index_tokens
from rfdetr.experiments.ch_d_class_names import NAME as DETECTOR
from rfdetr.peers import catalogue
from rfdetr.peers.counting import PROMPT_TOKENS

if TYPE_CHECKING:
    import pandas as pd

NAME, PROFILE = "text-cost", "cpu"
PASSES = 3
WHOLE, ENCODED, ALONE = "whole", "text encoded beforehand", "text encoder alone"
PROMPTS = {"COCO's 80 names": PROMPT_TOKENS, "80 class indices": index_tokens(COCO_CLASSES)}
PROMPTS["1 class index"] = index_tokens(1)
_CALL = "rfdetr.experiments.ch_d_timing"


def parts(profile: Profile, seed: int) -> list[Part]:
    """One part per length of prompt."""
    return [
        Part(f"prompt-{tokens}", f"{_CALL}:prompt_part", {"tokens": tokens, "passes": PASSES})
        for tokens in PROMPTS.values()
    ]


def prompt_part(place: Place, tokens: int, passes: int) -> dict[str, list[float]]:
    """ms of each pass of the whole detector, of the detector with its text encoded, and of the encoder."""
    import torch

    from rfdetr.peers.building import build
    from rfdetr.peers.counting import TEXT_INPUTS, example

    entry = catalogue.named(DETECTOR)
    catalogue.require(entry)
    model: Any = build(DETECTOR)
    _, arguments = example(entry, tokens)
    encoder = model.model.text_backbone
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            text = encoder(**{key: arguments[key] for key in TEXT_INPUTS})

            def without() -> object:
                model.model.text_backbone = _known(text)
                try:
                    return model(**arguments)
                finally:
                    model.model.text_backbone = encoder

            runs = {
                WHOLE: lambda: model(**arguments),
                ENCODED: without,
                ALONE: lambda: encoder(**{key: arguments[key] for key in TEXT_INPUTS}),
            }
            return in_turns(runs, passes)
    finally:
        torch.set_num_threads(before)


def _known(output: Any) -> Any:
    """A module that gives what was computed before, whatever it is asked."""
    from torch import nn

    class Known(nn.Module):
        def forward(self, *_: Any, **__: Any) -> Any:
            """The known output."""
            return output

    return Known()


def in_turns(runs: dict[str, Callable[[], object]], passes: int) -> dict[str, list[float]]:
    """ms of each pass of each run, one after the other, after one pass of each that does not count."""
    found: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(passes + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if number:
                found[name].append(1e3 * (time.perf_counter() - start))
    return found


def collect(finished: Finished) -> None:
    """Keep one row per length of prompt. UserError when none is done."""
    import pandas as pd

    done = finished.values("prompt-")
    if not done:
        raise UserError(f"{NAME}: nothing is done yet; run it again, for longer")
    rows = []
    for prompt, tokens in PROMPTS.items():
        value = done.get(f"prompt-{tokens}")
        if value:
            row: dict[str, Any] = {"prompt": prompt, "tokens": tokens, "passes": len(value[WHOLE])}
            for name, column in ((WHOLE, "whole"), (ENCODED, "encoded"), (ALONE, "alone")):
                row |= {f"{column}_ms": median(value[name]), f"{column}_low": min(value[name])}
                row[f"{column}_high"] = max(value[name])
            rows.append(row)
    kept.keep(
        finished.folder,
        {"prompts": pd.DataFrame(rows)},
        finished.origin,
        made_by=finished.makers(),
        missing=finished.plan.missing(),
    )


def said(prompts: "pd.DataFrame") -> str:
    """What the encoder takes of the time, and what shorter prompts save, in sentences."""
    first = prompts.iloc[0]
    saved = first.whole_ms - first.encoded_ms
    text = (
        f"Encoding {first.prompt} takes {first.alone_ms:,.0f} ms of {first.whole_ms:,.0f}"
        f" ({100 * first.alone_ms / first.whole_ms:.1f} %); with the text encoded beforehand a picture takes"
        f" {first.encoded_ms:,.0f} ms"
    )
    apart = first.encoded_high < first.whole_low
    text += f", {saved:,.0f} ms less." if apart else "; the passes of both overlap, so nothing is resolved."
    last = prompts.iloc[-1]
    if len(prompts) > 1:
        text += (
            f" With {last.prompt} in the prompt instead it takes {last.whole_ms / first.whole_ms:.2f} times"
            " as long"
        )
        overlap = last.whole_high >= first.whole_low and last.whole_low <= first.whole_high
        text += ", which is not resolved: the passes overlap." if overlap else "."
    return text


def loaded(root: Path | None = None) -> kept.Kept | None:
    """The kept result, or None where there is none."""
    return kept.find(NAME, root)


STUDY = Study(NAME, PROFILE, parts, collect, ("rfdetr.peers.building", "rfdetr.peers.counting"))
