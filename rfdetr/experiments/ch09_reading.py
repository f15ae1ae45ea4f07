"""The kept miniature benchmark as the chapters read it: whole, in part, or not there at all.

A page must say which domains it speaks of. `coverage` counts what is kept of every planned domain, and
`words` puts it in sentences.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from rfdetr.experiments.base import kept
from rfdetr.experiments.ch09_domains import NAME, SIZES
from rfdetr.experiments.ch09_intervals import FEW

if TYPE_CHECKING:
    import pandas as pd

    from rfdetr.experiments.base.kept import Kept

KINDS = {
    "searched": "nas",
    "fine_tuned": "nas_tuned",
    "trained_on": "nas_continued",
    "from_scratch": "scratch_nas",
    "other_lengths": "epochs",
    "real_prior": "prior_nas",
}
"""What the study does on a domain -> a kind of test that shows that it was done."""
PARTS = {
    "searched": ("the base trained further and searched", ("first-tune",)),
    "fine_tuned": (
        "chosen and fixed networks trained further alone, the supernet trained on",
        ("first-alone",),
    ),
    "from_scratch": ("the same from random weights", ("first-scratch",)),
    "other_lengths": ("the middle choice trained for other lengths", ("epochs",)),
    "real_prior": ("a base pre-trained on the other real sets, too", ("prior",)),
    "seeds": ("further trainings of searched domains", ("seed1", "seed2")),
}
"""Parts of the study in words, and how the names of those parts begin."""


def load(root: Path | None = None) -> "Kept | None":
    """The kept result, or None where it is not in this copy. UserError when it is damaged."""
    return kept.find(NAME, root)


def coverage(result: "Kept | None") -> "pd.DataFrame":
    """One row per planned domain, then any other: domain, kind (real, embedded), and the number of seeds of
    everything in `KINDS`.
    """
    import pandas as pd

    sizes = SIZES[result.record["provenance"]["profile"] if result else "cpu"]
    kinds = dict.fromkeys(sizes.real, "real") | dict.fromkeys(sizes.embedded, "embedded")
    tests = None if result is None else result.tables["tests"]
    if tests is not None:
        kinds = {**kinds, **{name: "other" for name in tests["domain"] if name not in kinds}}
    rows = []
    for domain, kind in kinds.items():
        own = {}
        for what, test in KINDS.items():
            if tests is None:
                own[what] = 0
            else:
                which = (tests["domain"] == domain) & (tests["kind"] == test)
                own[what] = int(tests.loc[which, "seed"].nunique())
        rows.append({"domain": domain, "kind": kind, **own})
    return pd.DataFrame(rows)


def names(result: "Kept | None", what: str = "searched") -> list[str]:
    """Domains of which the result has this (a key of `KINDS`)."""
    found = coverage(result)
    return found.loc[found[what] > 0, "domain"].tolist()


def words(result: "Kept | None", what: str = "searched") -> str:
    """Which of the planned domains are there, and how the rest is made; Markdown."""
    found = coverage(result)
    there, gone = found[found[what] > 0], found[found[what] == 0]
    command = f"`python -m rfdetr results {NAME}`"
    if result is None:
        real = int((found["kind"] == "real").sum())
        return (
            f"**Not in this copy:** the miniature benchmark on {real} real and {len(found) - real} embedded"
            f" domains. {command} makes it, in parts, and keeps what is done."
        )
    done = {"searched": "searched", "fine_tuned": "with fine-tuned sub-networks"}.get(
        what, what.replace("_", " ")
    )
    text = f"{len(there)} of {len(found)} planned domains {done}: {', '.join(there['domain']) or 'none'}."
    if len(gone):
        text += f" **Not in this copy:** {', '.join(gone['domain'])}; {command} goes on with them."
    return text


def missing_words(result: "Kept | None", *which: str) -> str:
    """What of the plan is not in the result, each with the command that makes it; Markdown, "" where all is.

    which: keys of `PARTS`, in their order; none: all of them. A result that is not there is not in parts, and
    `words` says how to make it.
    """
    if result is None:
        return ""
    lines = []
    for what in which or PARTS:
        phrase, begin = PARTS[what]
        gone = _unfinished(result) if what == "seeds" else _gone(result, what)
        if gone:
            commands = " ".join(f"--part {name}" for name in begin)
            whole = what != "seeds" and len(gone) > 1 and not names(result, what)
            where = f"all {len(gone)} planned domains" if whole else ", ".join(gone)
            lines.append(f"- {phrase}: {where} (`python -m rfdetr results {NAME} {commands}`)")
    if not lines:
        return ""
    keep = f"`python -m rfdetr results {NAME} --minutes 0` then keeps what is done"
    return "\n".join([f"Of the plan not done, or not in this copy ({keep}):", "", *lines])


def _gone(result: "Kept", what: str) -> list[str]:
    """Planned domains that do not have this."""
    sizes = SIZES[result.record["provenance"]["profile"]]
    planned = {"other_lengths": sizes.epochs, "real_prior": sizes.priors}
    there = names(result, what)
    return [d for d in planned.get(what, (*sizes.real, *sizes.embedded)) if d not in there]


def _unfinished(result: "Kept") -> list[str]:
    """Domains that are searched with fewer seeds than planned, each with their number."""
    sizes = SIZES[result.record["provenance"]["profile"]]
    found = coverage(result).set_index("domain")["searched"]
    return [f"{d} (has {n})" for d, n in found.items() if 0 < n < sizes.seeds]


def few_words(count: int) -> str:
    """What so few domains cannot say; empty from `FEW` on."""
    if count >= FEW:
        return ""
    return (
        f"With {count} domain{'' if count == 1 else 's'} nothing can be said about domains in general, which"
        f" takes at least {FEW}."
    )


def seed_words(result: "Kept") -> str:
    """How many trainings there are of a domain, and what an interval with one of them leaves out."""
    tests = result.tables["tests"]
    seeds = tests[tests["kind"] == "nas"].groupby("domain", sort=False)["seed"].nunique()
    one, more = seeds.index[seeds == 1].tolist(), seeds.index[seeds > 1].tolist()
    if not one:
        few, most = seeds.min(), seeds.max()
        return f"{few if few == most else f'Between {few} and {most}'} seeds of every domain." if more else ""
    where = "Every domain was" if not more else f"{', '.join(one)}: each"
    return (
        f"{where} trained once: there an interval covers the test pictures, and how much another training"
        " would change is not in it, so no difference on such a domain is called resolved. An average over"
        f" at least {FEW} domains holds as many trainings as domains, and its interval covers them. The base"
        " from which all start was trained once in any case."
    )
