"""Verdicts: none is a constant, each follows its evidence, one claim has one verdict in the whole book."""

import ast
import importlib
import inspect
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from evidence import EVIDENCE

from rfdetr.book.audit import CHAPTERS, claim_modules, expected
from rfdetr.errors import UserError
from rfdetr.experiments.base.chapter import Chapter
from rfdetr.paper import tables
from rfdetr.paper.audit import arithmetic_modules, recounts
from rfdetr.paper.verdicts import (
    NEEDS,
    WORDS,
    Check,
    Remark,
    Verdict,
    arguments,
    by_interval,
    claims,
    finding,
    functions,
    outcome,
)
from rfdetr.plots.findings import findings_html
from rfdetr.sources import package_root

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of evidence that makes no sense

MODULES = {m.__name__: m for chapter in CHAPTERS for m in claim_modules(chapter)} | {
    m.__name__: m for m in arithmetic_modules().values()
}
FUNCTIONS = [(name, function) for module in MODULES.values() for name, function in functions(module)]


def test_no_verdict_is_a_literal():
    """Every outcome is computed: the first argument of `Verdict` is a constant only where it says `needs`."""
    for module in MODULES.values():
        for node in ast.walk(ast.parse(inspect.getsource(module))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("Verdict", "Check"):
                word = node.args[1 if node.func.id == "Check" else 0]
                constant = isinstance(word, ast.Constant)
                needs = constant and str(word.value).startswith(NEEDS)
                assert not constant or needs, f"{module.__name__}:{node.lineno}"


def test_only_claim_modules_make_verdicts():
    """A verdict made anywhere else would escape the mutations below."""
    for path in sorted((package_root() / "rfdetr").rglob("*.py")):
        name = ".".join(path.relative_to(package_root()).with_suffix("").parts)
        if name not in MODULES and name != "rfdetr.paper.verdicts":
            assert "Verdict(" not in path.read_text(encoding="utf-8"), name
    for path in sorted((package_root() / "notebooks").glob("*.ipynb")):
        assert "Verdict(" not in path.read_text(encoding="utf-8"), path.name


def numeric(frame: pd.DataFrame) -> list[str]:
    return [c for c in frame.columns if pd.api.types.is_numeric_dtype(frame[c]) and frame[c].dtype != bool]


def with_values(frame: pd.DataFrame, columns: list[str], values: np.ndarray) -> pd.DataFrame:
    return frame.assign(**dict(zip(columns, values.T, strict=True)))


def whole(frame: pd.DataFrame):
    """Other evidence of the same shape: numbers zeroed, shuffled, reversed, negated; rows gone."""
    order = np.random.default_rng(0).permutation(len(frame))
    columns = numeric(frame)
    for some in (columns, *([column] for column in columns)):
        values = frame[some].to_numpy(dtype=float)
        for changed in (values * 0, values[::-1], values[order], -values, values * 3, 1 / (values + 1)):
            yield with_values(frame, some, changed)
    for column in frame.columns.difference(columns):
        yield frame.assign(**{column: frame[column].to_numpy()[::-1]})
        yield frame.assign(**{column: frame[column].to_numpy()[0] if len(frame) else None})
    yield from (frame.iloc[:0], frame.iloc[: len(frame) // 2], frame.iloc[1:])


def single(frame: pd.DataFrame):
    """One number after the other changed, in up to forty rows."""
    for column in numeric(frame):
        values = frame[[column]].to_numpy(dtype=float)
        for row in range(0, len(frame), 1 + len(frame) // 40):
            for other in (-values[row] - 1, 0.8 * values[row], 3 * values[row]):
                one = values.copy()
                one[row] = other
                yield with_values(frame, [column], one)


def documents(value):
    """Other documents of the same shape: one number or list after the other changed."""
    if isinstance(value, dict):
        for key, part in value.items():
            for other in documents(part):
                yield {**value, key: other}
    elif isinstance(value, list):
        yield value[:-1]
        yield 9 * value
        yield from ([*value, 14], [*value, 16]) if all(isinstance(v, int) for v in value) else ()
        for index, part in enumerate(value):
            for other in documents(part):
                yield [*value[:index], other, *value[index + 1 :]]
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield 0
        yield value * 2 + 1
    elif isinstance(value, str):
        yield ""


def others(name: str, given: dict):
    """Evidence with something changed: what is known to turn this verdict, else everything in turn."""
    if name in TURNED:
        yield {**given, **TURNED[name](given)}
        return
    frames = {key: part for key, part in given.items() if isinstance(part, pd.DataFrame)}
    for key, part in frames.items():
        yield from ({**given, key: other} for other in whole(part))
    yield {**given, **{key: part.assign(**dict.fromkeys(numeric(part), 5.0)) for key, part in frames.items()}}
    for key, part in given.items():
        if isinstance(part, int | float):
            yield from ({**given, key: other} for other in (0.0, 2.0 * part + 1))
        elif key not in frames:
            yield from ({**given, key: other} for other in documents(part))
    for key, part in frames.items():
        yield from ({**given, key: other} for other in single(part))


def put(frame: pd.DataFrame, column: str, value, **where) -> pd.DataFrame:
    """The table with one column's value where other columns have these values."""
    chosen = np.logical_and.reduce([frame[name] == wanted for name, wanted in where.items()])
    assert chosen.any(), where
    return frame.assign(**{column: frame[column].where(~chosen, value)})


def sides(given: dict, **values) -> dict:
    """The sides with other values at places whose words (underscores for blanks) are named."""
    changed = [
        {**s, "value": next((v for k, v in values.items() if k.replace("_", " ") in s["where"]), s["value"])}
        for s in given["sides"]
    ]
    return {"sides": changed}


# Verdicts that hang on one equality, which shuffling does not hit: the change that turns them.
TURNED = {
    "C077": lambda g: {"t3": put(g["t3"], "latency_ms", 33.0, model="FastInst")},
    "C103": lambda g: {"values": {**g["values"], "printed": 2.0}},
    "C108": lambda g: {
        "t4": put(g["t4"], "ap", 50.0, model="D-FINE"),
        "t14": put(g["t14"], "ap", 50.0, model="D-FINE"),
    },
    "C109": lambda g: {"t20": put(g["t20"], "latency_ms_buffer_200ms", 5.1, model="YOLOv11"),
                       "t1": put(g["t1"], "latency_ms", 5.1, model="YOLOv11")},
    "C111": lambda g: {
        "inconsistencies": [{"id": "I14", "sides": [{"where": "", "value": "128, the same as LW-DETR"}]}]
    },
    "C138": lambda g: {"t11": put(g["t11"], "ap_s_size", 9.0, method="D-FINE").assign(ap_xl_size=9.0)},
    "C140": lambda g: {"t14": g["t12"]},
    "C143": lambda g: {"t14": g["t14_v1"]},
    "C157": lambda g: {"t4": put(put(g["t4"], "ap", 59.5, model="LW-DETR", size="S"),
                                 "ap", 60.5, model="LW-DETR", size="M")},
    "C160": lambda g: {"t19": g["t6"]},
    "C165": lambda g: {"t7": put(g["t7"], "patch_size", 20, size="Max"),
                       "t8": put(g["t8"], "patch_size", 12, size="Max")},
    "C169": lambda g: {"values": {**g["values"], "patches": [27, 20, 18]}},
    "I19": lambda g: {name: g[name].assign(gflops=83.9) for name in ("t2", "t4", "t5", "t6")},
    "I20": lambda g: {name: g[name].assign(params_m=28.2) for name in ("t5", "t6")},
    "I30": lambda g: {name: g[name].assign(ap=1, ap75=1, ap_s=1, ap_m=1, ap_l=1) for name in ("t2", "t5")},
    "I03": lambda g: {"search_grid": {"inference": {"resolutions_px": list(range(200, 1000))}}},
    "I04": lambda g: {"search_grid": {"inference": {"resolutions_px": [560]}}},
    "I07": lambda g: {"search_grid": {"printed_totals": {**g["search_grid"]["printed_totals"],
                                                         "search_gpu_hours_printed": 9600}}},
    "I09": lambda g: {"t7": g["t7"].assign(patch_size=16), "t8": g["t8"].assign(patch_size=12)},
    "I12": lambda g: {"training_recipe": {"training": [
        {"name": "windowed_attention_blocks", "value": [0, 1], "lw_detr_value": [2, 3]}]}},
    "I13": lambda g: sides(g, Appendix_L="resolution 640 with patch 27, 20, 18 for 24, 32, 36"),
    "I14": lambda g: TURNED["C111"](g),
    "I17": lambda g: {"t5": g["t5"].assign(gflops=78.8)},
    "I23": lambda g: {"t4_v1": g["t4_v1"].assign(model="YOLO-E")},
    "I26": lambda g: {"t17_v1": g["t4_v1"]},
    "I31": lambda g: sides(g, caption="2.0%"),
    "I33": lambda g: {"t14": g["t14"].assign(size="Max")},
    "I42": lambda g: {"t12": put(g["t12"], "ap", 70.0, model="RF-DETR"),
                      "t2": put(g["t2"], "ap", 70.0, model="RF-DETR")},
    "I45": lambda g: {"t3": g["t3"].assign(latency_runtime="tensorrt", latency_ms=1.0)},
    "I50": lambda g: {"t11": g["t11"].assign(ap_n_size=1.0)},
    "I68": lambda g: {name: g[name].assign(model_printed="RF-DETR-Seg") for name in ("t3", "t13", "t16")},
    "I75": lambda g: sides(g, documentation="37.1, 44.1, 48.3"),
    "I76": lambda g: sides(g, README="conf=0.01"),
    "I77": lambda g: {"training_recipe": {**g["training_recipe"], "published_code_defaults": {
        "batch_size": 64, "grad_accum_steps": 2, "lr": 1, "lr_encoder": 1}}},
}  # fmt: skip


def given_to(name, function):
    own = {"values": claims()[name]["values"]} if name in claims() else {}
    return arguments(function, own, **EVIDENCE.get(function.__module__, {}))


@pytest.mark.parametrize(("name", "function"), FUNCTIONS, ids=[n for n, _ in FUNCTIONS])
def test_every_verdict_follows_its_evidence(name, function):
    """Somewhere among shuffled, zeroed and reversed evidence the verdict is another one."""
    given = given_to(name, function)
    first = function(**given)
    if isinstance(first, Remark) or (isinstance(first, Verdict) and first.verdict.startswith(NEEDS)):
        return  # nothing is decided
    word = finding(name, first).verdict
    assert any(
        other not in (word, None) for other in (decide(name, function, g) for g in others(name, given))
    ), f"{name} is {word!r} whatever the evidence"


def decide(name, function, given):
    """The word for other evidence; None where that makes no sense and is refused."""
    try:
        return finding(name, function(**given)).verdict
    except Exception:
        return None


RECOUNTS = recounts()


@pytest.mark.parametrize("name", sorted(RECOUNTS))
def test_every_recount_follows_the_tables(name):
    """A disagreement is confirmed by its numbers, not by its name."""
    from rfdetr.paper.disagreements import counts, grids, labels, margins, measurements

    modules = (grids, counts, margins, measurements, labels)
    function = next(getattr(m, name.lower()) for m in modules if hasattr(m, name.lower()))
    entry = next(e for e in tables.document("inconsistencies") if e["id"] == name)
    given = arguments(function, entry)
    assert function(**given).holds and function(**given).shown
    if name in ("I15", "I34", "I57"):  # decided by printed titles and digits, which are no argument
        return
    assert any(still is False for still in (holds(function, g) for g in others(name, given))), name


def holds(function, given):
    """Whether the disagreement is there for other evidence; None where that makes no sense."""
    try:
        return bool(function(**given).holds)
    except Exception:
        return None


def test_one_verdict_per_claim_over_the_whole_book():
    homes = expected()  # raises when two chapters decide one claim
    seen: dict[str, str] = {}
    for module in MODULES.values():
        for name, _ in functions(module):
            if name in claims():
                assert name not in seen, (name, seen.get(name), module.__name__)
                seen[name] = module.__name__
    assert set(homes) <= set(seen)


def test_notebooks_end_with_the_modules_of_their_chapter():
    """The list of `rfdetr.book.audit` is what the notebooks do."""
    import nbformat

    for path in sorted((package_root() / "notebooks").glob("[0-9A-Z]*.ipynb")):
        code = "\n".join(c.source for c in nbformat.read(path, 4).cells if c.cell_type == "code")
        tree = ast.parse(code)
        names = {
            alias.asname or alias.name: alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }
        calls = [
            node
            for node in ast.walk(tree)
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "findings"
        ]
        used = [names[argument.id] for call in calls for argument in call.args]
        assert tuple(used) == CHAPTERS[path.stem], path.stem
    assert {p.stem for p in (package_root() / "notebooks").glob("[0-9A-Z]*.ipynb")} == set(CHAPTERS)


def test_evidence_of_every_function_is_given_by_its_notebook():
    """Each parameter is a keyword of the notebook's call or a part of the paper."""
    import nbformat

    for chapter in CHAPTERS:
        code = "\n".join(
            c.source
            for c in nbformat.read(package_root() / "notebooks" / f"{chapter}.ipynb", 4).cells
            if c.cell_type == "code"
        )
        call = next(
            node
            for node in ast.walk(ast.parse(code))
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "findings"
        )
        given = {keyword.arg: pd.DataFrame() for keyword in call.keywords}
        for name, function in functions(*claim_modules(chapter)):
            own = {"values": {}} if name in claims() else {}
            arguments(function, own, **given)  # TypeError naming what is missing


def test_words_are_validated():
    assert Verdict("needs a T4").verdict == "needs a T4"
    for wrong in ("probably", "needs ", ""):
        with pytest.raises(ValueError, match="a verdict is one of"):
            Verdict(wrong)
    assert [by_interval(*ends) for ends in ((0.1, 0.2), (-0.1, 0.1), (-0.2, -0.1))] == [
        "consistent",
        "not resolved",
        "contradicted",
    ]


def test_missing_evidence_is_named():
    def c037(kept):
        """Wants what is not there."""

    with pytest.raises(TypeError, match=r"c037 needs 'kept', which is not given"):
        outcome("C037", c037, {})


def test_the_words_are_explained_on_the_page_about_the_book():
    about = (package_root() / "book" / "about.md").read_text(encoding="utf-8")
    for word, meaning in WORDS.items():
        assert f"| {word} | {meaning} |" in about
    assert "| needs ... |" in about


def test_a_profile_without_meaning_has_checks_alone(tmp_path):
    module = importlib.import_module("rfdetr.experiments.ch01_claims")
    evidence = EVIDENCE[module.__name__]
    smoke = Chapter("01_architecture", "smoke", 0, str(tmp_path)).findings(module, **evidence)
    assert {row.kind for row in smoke.rows} == {"check"} and not smoke.meaningful
    html = findings_html(smoke)
    assert "No verdicts" in html and 'id="C115"' not in html and "profile smoke" in html.lower()
    cpu = Chapter("01_architecture", "cpu", 0, str(tmp_path)).findings(module, **evidence)
    html = findings_html(cpu)
    assert {"verdict", "remark", "check"} == {row.kind for row in cpu.rows}
    assert html.count('id="C115"') == 1 and "No verdicts" not in html
    assert 'class="verdict contradicted"' in html


def test_a_chapter_in_a_notebook_warns_and_signs_itself(tmp_path):
    """As papermill runs it: no site builder is near."""
    import nbformat
    import papermill

    source = Path(package_root() / "notebooks" / "10_nas_ablation.ipynb")
    out = tmp_path / "out.ipynb"
    papermill.execute_notebook(
        str(source), str(out), parameters={"profile": "smoke", "output_dir": str(tmp_path)},
        progress_bar=False, cwd=str(package_root()),
    )  # fmt: skip
    shown = [
        "".join(output.get("data", {}).get("text/html", ""))
        for cell in nbformat.read(out, 4).cells
        if cell.cell_type == "code"
        for output in cell.outputs
    ]
    assert "carry no meaning" in next(text for text in shown if text)
    assert "made-with" in shown[-1] and "commit" in shown[-1] and "No verdicts" in shown[-1]


def test_checks_are_words_of_their_own():
    found = finding("check_x", Check("2 + 2 = 4", True, {"sum": np.float64(4)}))
    assert (found.kind, found.verdict, found.claim) == ("check", "passed", "")
    assert type(found.numbers["sum"]) is float


def test_numbers_are_plain():
    numbers = {"a": np.int64(1), "b": (np.float32(0.5), float("nan")), "c": {"d": np.bool_(True)}}
    found = finding("C001", Verdict("consistent", numbers))
    assert found.numbers == {"a": 1, "b": [0.5, None], "c": {"d": True}}


def test_unknown_claim_is_refused():
    from rfdetr.book.audit import audit, one

    with pytest.raises(UserError, match="no claim or inconsistency 'C999'"):
        one(audit({}), "C999")
