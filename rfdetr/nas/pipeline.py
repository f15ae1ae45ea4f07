"""The run from data to files: each stage with what decides it, what it needs, and what it says."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rfdetr.arch import SearchSpace
from rfdetr.benchmark.runtimes import check_executes
from rfdetr.files import read_json, strict, told, write_atomic, write_json
from rfdetr.nas import baseline, choose, finetune, handover, look, plan, words
from rfdetr.nas.network import weights_digest
from rfdetr.nas.options import NasOptions
from rfdetr.nas.processes import check_devices
from rfdetr.nas.report import write_report
from rfdetr.nas.run import SPLITS, Run
from rfdetr.nas.stages import OPTIONS, fresh
from rfdetr.training.evaluations import FILLED, empty_masks

_INDENT = "      "
_GRID = ("resolutions", "patch_sizes", "windows", "queries")


@dataclass(frozen=True)
class NasResult:
    """networks: one entry per chosen network (arch, targets, latency_ms, val, test, file, ...). report: the
    HTML page, or None where it could not be made. folder: of the run.
    """

    networks: list[dict[str, Any]]
    report: Path | None
    folder: Path


def search_network(
    options: NasOptions,
    out: str | Path,
    *,
    command: str = "",
    say: Callable[[str], None] = print,
    dry_run: bool = False,
) -> NasResult | None:
    """All stages in `out`, each kept there; with `dry_run` the first two, and None.

    command: what is written into the cards as the way to make this again. Raises UserError for bad input,
    before any training; Interrupted after SIGINT or SIGTERM, once everything that was done is on disk.
    """
    check_executes(options.runtime, options.precision)
    check_devices(options.devices or 1)
    if options.hours is not None:
        plan.without_reserve(options.hours)
    run = Run(options, out, command, say)
    with run.stages.alone(), told(run.root):
        if other := words.other_options(read_json(run.root / OPTIONS), options.to_dict()):
            say(f"{run.root} holds {other}")
        write_json(run.root / OPTIONS, {**options.to_dict(), "command": run.command})
        looked(run)
        planned(run)
        if dry_run:
            say("dry run: nothing was trained; leave out --dry-run to go on from here")
            return None
        trained(run)
        searched(run)
        chosen(run)
        if options.fine_tune and run.result("plan")["tune_steps"]:
            fine_tuned(run)
        if options.baseline:
            against_fixed(run)
        written(run)
        page = write_report(run)
        text = words.readme(run.root, run.stages, run.command, run.metric, page)
        write_atomic(run.root / "README.md", text)
        say(f"networks: {run.root / words.NETWORKS}" + (f"\nreport: {page}" if page else ""))
        return NasResult(list(run.result("export")["networks"]), page, run.root)


def looked(run: Run) -> None:
    """Open all splits, refuse what cannot be trained on, propose a space."""
    run.check_data()
    # Given weights have a grid of their own, which the plan knows.
    given = {name: None if run.options.weights else getattr(run.options, name) for name in _GRID}
    values = {
        "data": {split: run.data(split).fingerprint for split in SPLITS},
        "given": given,
        "segmentation": run.options.segmentation,
    }

    def work(folder: Path) -> dict[str, Any]:
        splits = {split: run.data(split) for split in SPLITS}
        numbers, small = look.numbers(splits), look.small_side(splits["train"])
        counts = numbers["train"]["per_image"]
        proposal = look.propose(counts["p95"], counts["maximum"], small, given)
        return {
            "statistics": numbers,
            "small_side": small,
            "shared": look.shared_pictures(splits),
            "space": asdict(proposal.space),
            "reasons": list(proposal.reasons),
        }

    result = run.stages.run("look", values, (), work, "looking at the data").result
    for split, found in result["statistics"].items():
        run.say(f"{_INDENT}{split}: {words.split(found)}")
    if shared := look.shared_words(result["shared"]):
        run.say(f"{_INDENT}{shared}")
    for reason in () if run.options.weights else result["reasons"]:
        run.say(f"{_INDENT}{reason}")


def planned(run: Run) -> None:
    """Measure a few steps, then decide on steps and on what the search may cost."""
    names = (
        "weights",
        "backbone",
        "hours",
        "steps",
        "fine_tune",
        "baseline",
        "seed",
        "batch_size",
        "measured",
        "runtime",
        "precision",
        "threads",
        "devices",
        *_GRID,
    )
    values = {name: getattr(run.options, name) for name in names}
    files = (run.options.weights, run.options.backbone)
    values["weights_digest"] = [weights_digest(name) for name in files]

    def work(folder: Path) -> dict[str, Any]:
        found = plan.settle(run.options, run.trainer, run.proposal, fresh(folder / "probe"))
        fresh(folder / "probe").rmdir()
        return found

    result = run.stages.run("plan", values, ("look",), work, "planning").result
    run.trainer.devices = result["devices"]
    run.say(
        f"{_INDENT}network: {result['origin']}; training grid {words.grid(SearchSpace(**result['space']))}"
    )
    low = plan.unreachable(run.options, result["fastest_ms"])
    for line in [*result["details"], *result["lines"], *([low] if low else [])]:
        run.say(f"{_INDENT}{line}")


def trained(run: Run) -> None:
    """The supernet; a stopped training goes on from its checkpoint."""

    def work(folder: Path) -> dict[str, Any]:
        begin = plan.start(run.options, run.data("train"), run.proposal)
        notes = {"start": begin.origin, "recipe": begin.recipe, "source": run.source}
        found = run.trainer(
            begin.model,
            run.space,
            run.config,
            folder,
            notes=notes,
            tensorboard=find_spec("tensorboard") is not None,
        )
        rows = [row for row in found.evaluations if row["step"] == found.best_step]
        return {"steps": found.step, "step": found.best_step, "evaluations": strict(rows)}

    values = {
        "config": run.config.to_dict(),
        "space": run.result("plan")["space"],
        "devices": run.result("plan")["devices"],
    }
    result = run.stages.run("train", values, ("look", "plan"), work, "training the supernet").result
    if result["step"] != result["steps"]:
        run.say(f"{_INDENT}stopped after step {result['steps']:,}; the best was step {result['step']:,}")
    for row in result["evaluations"]:
        run.say(
            f"{_INDENT}{row['arch']}: {words.named(run.metric)} {words.number(row.get(run.metric))} on val"
        )
        if not row.get(FILLED, 1.0):
            run.say(f"{_INDENT}warning: {empty_masks(row['arch'])}")


def searched(run: Run) -> None:
    """Accuracies and latencies of the grid: exactly, or within the plan's budget."""
    from rfdetr.search.run import search
    from rfdetr.search.spending import search_within

    settled = run.result("plan")
    given = {
        "measured": settled["measured"],
        "metric": run.metric,
        "complete": settled["complete"],
        **{n: getattr(run.options, n) for n in ("runtime", "precision", "threads", "seed")},
    }
    space = SearchSpace(**settled["search_space"])

    def work(folder: Path) -> dict[str, Any]:
        network, val = run.network(), run.data("val")
        more: dict[str, Any] = {"intervals": False, "images": run.data("train")}
        if settled["budget"] >= 1:
            found = search(network, val, space, folder, **more, **given)
        else:
            found = search_within(settled["budget"], network, val, space, folder, **more, **given)
        return {"sub_networks": len(found.table), "front": len(found.front)}

    values = {
        **given,
        "space": settled["search_space"],
        "budget": settled["budget"],
        "precision": run.options.precision,
    }
    if run.options.precision != "fp32":
        values["accuracy"] = "of the timed files"
    result = run.stages.run("search", values, ("look", "train"), work, "searching").result
    run.say(f"{_INDENT}{result['sub_networks']} sub-networks, {result['front']} on the front")


def chosen(run: Run) -> None:
    """The best network of every latency, and what it reaches on the test split."""
    values = {"targets": list(run.options.targets_ms), "like": list(run.options.like), "metric": run.metric}
    result = run.stages.run(
        "choose", values, ("search",), lambda folder: choose.choose(run, folder), "choosing"
    ).result
    for text in result["refused"]:
        run.say(f"{_INDENT}no network for {text}")
    for entry in result["networks"]:
        run.say(f"{_INDENT}{'; '.join(entry['targets'])}: {words.network(entry, run.metric)}")


def fine_tuned(run: Run) -> None:
    """The chosen networks trained further; of each pair one is kept."""
    config = finetune.tuning_config(run.config, run.result("plan")["tune_steps"])
    result = run.stages.run(
        "fine-tune",
        {"config": config.to_dict()},
        ("choose",),
        lambda folder: finetune.fine_tune_all(run, config, folder),
        "training the chosen networks further",
    ).result
    if result["steps"] < config.steps:
        run.say(f"{_INDENT}{words.shortened(result['steps'], config.steps)}")
    for row in result["networks"]:
        run.say(
            f"{_INDENT}{row['arch']}: {words.named(run.metric)} on val {words.number(row['inherited'])} ->"
            f" {words.number(row['tuned'])}, {words.difference(row)}, {words.fine_tuning(row)}"
        )


def _latest(run: Run) -> tuple[str, ...]:
    """What the handed-over networks depend on."""
    return ("choose", *(("fine-tune",) if run.has("fine-tune") else ()))


def against_fixed(run: Run) -> None:
    """One fixed architecture trained alone, for as long as the whole search trained."""
    title = "training one fixed architecture alone"
    result = run.stages.run(
        "baseline", {}, _latest(run), lambda folder: baseline.fixed(run, folder), title
    ).result
    run.say(
        f"{_INDENT}{result['arch']}, {result['latency_ms']:.3g} ms, {result['steps']:,} steps"
        f"{words.share(result)}: test {words.named(run.metric)} {words.interval(result['test'])}"
    )
    for row in result["against"]:
        run.say(f"{_INDENT}{row['arch']} minus the fixed one: {words.difference(row)}, {words.verdict(row)}")
    run.say(f"{_INDENT}{words.worth(result)}")


def written(run: Run) -> None:
    """A checked file and a card for every chosen network."""
    values = {"command": run.command, "runtime": run.options.runtime, "precision": run.options.precision}
    result = run.stages.run(
        "export", values, _latest(run), lambda folder: handover.hand_over(run, folder), "writing the networks"
    ).result
    handover.deliver(run, run.root / words.NETWORKS)
    for entry in result["networks"]:
        warning = ": THEY DIFFER, do not use the file" if handover.differs(entry) else ""
        of_file, of_network = words.number(entry["file_AP"]), words.number(entry["test"]["AP"])
        run.say(
            f"{_INDENT}{run.root / words.NETWORKS / entry['file']}: {words.named(run.metric)} of the file on"
            f" test {of_file}, of the network {of_network}{warning}"
        )
        if deployed := entry.get("deployed"):
            run.say(
                f"{_INDENT}{run.root / words.NETWORKS / deployed['file']}: executed in"
                f" {deployed['precision']}, {words.named(run.metric)} on test {words.number(deployed['AP'])}"
            )
