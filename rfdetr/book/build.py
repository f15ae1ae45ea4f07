"""The book: execute what changed, then build the site. `build_book` does it all.

What a chapter shows comes from one profile (`rfdetr.experiments.base.profiles`). A failed chapter is never
published and does not stop the others. The parts: `cache` decides, `schedule` orders, `execute` executes,
`stage` stages and builds the site, `status` writes the status board.
"""

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rfdetr.book.cache import Chapter, Keys, Project, cached_record, chapter_parameters, read_notebook
from rfdetr.book.execute import Outcome, execute, running_copy, store_root
from rfdetr.book.kernels import Kernels
from rfdetr.book.live import Live
from rfdetr.book.pages import figures_without_alt
from rfdetr.book.schedule import default_jobs, run
from rfdetr.book.stage import build_site, read_toc, staged_files
from rfdetr.errors import UserError
from rfdetr.experiments.base.profiles import DEFAULT_PROFILE, get_profile
from rfdetr.files import write_json
from rfdetr.sources import package_root


@dataclass(frozen=True)
class BookResult:
    """What a build did. `site` is the first page, or None where no site was built or where it has
    warnings.
    """

    outcomes: tuple[Outcome, ...]
    site: Path | None
    site_state: str
    seconds: float

    @property
    def exit_code(self) -> int:
        """0 when every chapter and the site are good, else 1."""
        return int(any(outcome.state == "failed" for outcome in self.outcomes) or self.site_state == "failed")

    def names(self, state: str) -> list[str]:
        """Names of the chapters in a state: executed, cached, failed or skipped."""
        return [outcome.chapter.name for outcome in self.outcomes if outcome.state == state]


def find_project(root: Path | None = None) -> Project:
    """The repository around `root` (the current folder, else the package); UserError if there is no book."""
    for folder in [root] if root else [Path.cwd(), package_root()]:
        if (folder / "book" / "_toc.yml").is_file():
            return Project(folder.resolve())
    raise UserError(f"no book/_toc.yml in {root or Path.cwd()}; run this in the repository's folder")


def build_book(
    profile: str = DEFAULT_PROFILE,
    chapters: Iterable[str] | None = None,
    parameters: Mapping[str, Any] | None = None,
    *,
    timeout: int | None = None,
    force: bool = False,
    site: bool = True,
    jobs: int | None = None,
    project: Project | None = None,
) -> BookResult:
    """Execute the chapters that changed and build the site in build/_build/html.

    chapters     names such as `05_search`; None means all of the table of contents
    parameters   for the chapters named, beside `profile`
    timeout      seconds that one cell may take; None means no limit
    force        execute also what did not change
    site         False executes only
    jobs         chapters that are executed at a time; None: `schedule.default_jobs`

    Raises UserError for an unknown profile, chapter or parameter (before anything is executed) and while
    another build runs.
    """
    started = time.perf_counter()
    project = project or find_project()
    get_profile(profile)
    if timeout is not None and timeout < 1:
        raise UserError(f"the cell timeout is a number of seconds of at least 1, not {timeout}")
    if jobs is not None and jobs < 1:
        raise UserError(f"--jobs is a number of chapters of at least 1, not {jobs}")
    with _only_build(project):
        toc, all_chapters = read_toc(project)
        chosen = _choose(all_chapters, chapters)
        if parameters and chapters is None:
            raise UserError("parameters belong to a chapter: name the chapter that they are for")
        plans = {
            chapter.name: chapter_parameters(chapter, profile, parameters if chapter in chosen else None)
            for chapter in all_chapters
        }
        jobs = jobs or default_jobs()
        outcomes = _all(_Plan(project, profile, all_chapters, chosen, plans, timeout, force, jobs))
        state, page = "not built", None
        if site:
            state, page = _site(project, profile, toc, outcomes)
    result = BookResult(outcomes, page, state, time.perf_counter() - started)
    counts = ", ".join(
        f"{len(result.names(s))} {s}" for s in ("executed", "cached", "skipped", "failed") if result.names(s)
    )
    print(f"book, profile {profile}: {counts or 'no chapters'}; site {state}; {result.seconds:.1f} s")
    if page:
        print(f"open {page}")
    return result


def _choose(have: list[Chapter], wanted: Iterable[str] | None) -> list[Chapter]:
    if wanted is None:
        return have
    by_name = {chapter.name: chapter for chapter in have}
    names = [Path(name).name.removesuffix(".ipynb") for name in wanted]
    unknown = [name for name in names if name not in by_name]
    if unknown:
        raise UserError(
            f"no chapter {', '.join(unknown)} in book/_toc.yml; there are {', '.join(by_name) or 'none'}"
        )
    return [by_name[name] for name in names]


@dataclass(frozen=True)
class _Plan:
    """What a build is asked to do. parameters: of every chapter, by its name."""

    project: Project
    profile: str
    chapters: list[Chapter]
    chosen: list[Chapter]
    parameters: Mapping[str, Mapping[str, Any]]
    timeout: int | None
    force: bool
    jobs: int


def _all(plan: _Plan) -> tuple[Outcome, ...]:
    """What became of every chapter, in the order of the book."""
    project, profile = plan.project, plan.profile
    key_of = Keys(project)
    keys = {c.name: key_of(c, plan.parameters[c.name]) for c in plan.chapters}
    done: dict[str, Outcome] = {}
    for chapter in plan.chapters:
        record = cached_record(project, profile, chapter, keys[chapter.name])
        if record is not None and not (plan.force and chapter in plan.chosen):
            done[chapter.name] = Outcome(chapter, "cached", record)
            if chapter in plan.chosen:
                print(f"{chapter.label} ... cached", flush=True)
        elif chapter not in plan.chosen:
            done[chapter.name] = Outcome(chapter, "skipped")
    _write_records(project, profile, done.values(), plan.chapters)
    missing = [chapter for chapter in plan.chapters if chapter.name not in done]
    kernels = Kernels(project.root, store_root(project), min(plan.jobs, len(missing)))

    def work(chapter: Chapter) -> Outcome:
        with live.chapter(chapter.label, running_copy(project, profile, chapter)) as said:
            given, key = plan.parameters[chapter.name], keys[chapter.name]
            return execute(project, profile, chapter, given, key, kernels, plan.timeout, said)

    def finished(outcome: Outcome) -> None:
        live.say(*_words(project, profile, outcome))
        done[outcome.chapter.name] = outcome
        _write_records(project, profile, done.values(), plan.chapters)

    with Live() as live, kernels.environment():
        run(missing, plan.jobs, work, finished, kernels.stop)
    return tuple(done[chapter.name] for chapter in plan.chapters)


def _words(project: Project, profile: str, outcome: Outcome) -> Iterator[str]:
    """What is said about an executed chapter."""
    record, label = outcome.record, outcome.chapter.label
    if outcome.state == "failed":
        yield f"{label} ... FAILED after {record['seconds']:.1f} s {outcome.error}"
        return
    yield f"{label} ... executed in {record['seconds']:.1f} s, peak {record['peak_mb']} MB"
    missing = figures_without_alt(read_notebook(project.executed(profile, outcome.chapter)))
    if missing:
        yield f"    {missing} figures without an alternative text: show them with rfdetr.plots.display.show"


def _site(
    project: Project, profile: str, toc: dict[str, Any], outcomes: Iterable[Outcome]
) -> tuple[str, Path | None]:
    # Links to a failed chapter lead nowhere, and that chapter is already the error to report.
    strict = all(outcome.state != "failed" for outcome in outcomes)
    print("site ... ", end="", flush=True)
    state, messages = build_site(project, staged_files(project, profile, toc, outcomes), strict=strict)
    print(state, flush=True)
    if state == "failed":
        print(messages, flush=True)
        return state, None
    return state, project.build / "_build" / "html" / "index.html"


def _write_records(
    project: Project, profile: str, outcomes: Iterable[Outcome], chapters: list[Chapter]
) -> None:
    """Keep the last record of each chapter by profile; chapters that are gone lose theirs."""
    path = project.build / "records.json"
    records = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    names = {chapter.name for chapter in chapters}
    mine = {name: record for name, record in records.get(profile, {}).items() if name in names}
    for outcome in outcomes:
        if outcome.state == "failed":
            mine[outcome.chapter.name] = {**outcome.record, "error": outcome.error}
        elif outcome.record:
            mine[outcome.chapter.name] = outcome.record
    write_json(path, {**records, profile: mine})


@contextmanager
def _only_build(project: Project) -> Iterator[None]:
    from filelock import FileLock, Timeout

    try:
        project.build.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot create {project.build}: {error.strerror}") from error
    path = project.build / ".book.lock"
    try:
        # Held by the process, so it ends with the process, however that ends.
        with FileLock(path, timeout=0):
            yield
    except Timeout:
        raise UserError(f"another build of this book is running (it holds {path}); wait for it") from None


def parse_parameters(texts: Iterable[str]) -> dict[str, Any]:
    """`name=value` texts as a dict; a value is read as YAML (`seed=1`, `sizes=[1, 2]`, `name=text`)."""
    import yaml

    parameters: dict[str, Any] = {}
    for text in texts:
        name, mark, value = text.partition("=")
        if not mark or not name.isidentifier():
            raise UserError(f"a parameter is given as name=value, not {text!r}")
        try:
            parameters[name] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise UserError(f"cannot read the value of parameter {name}: {value!r}") from error
    return parameters
