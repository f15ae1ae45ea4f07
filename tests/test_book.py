import json
import re
import threading
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from small_book import notebook, write_project, write_toc

from rfdetr.book.build import build_book, find_project, parse_parameters
from rfdetr.book.cache import Chapter, Keys, Project, chapter_parameters
from rfdetr.book.execute import execute
from rfdetr.book.kernels import Kernels
from rfdetr.book.pages import figures_without_alt, joined_streams, page
from rfdetr.book.stage import build_site, paper_objects, read_toc, repository_address
from rfdetr.cli import main
from rfdetr.errors import UserError
from rfdetr.experiments.base.telling import telling
from rfdetr.sources import package_root

ONE = """import minilib
from minilib.one import VALUE
print("value", VALUE, profile, seed)"""
TWO = """def load():
    from minilib.two import NAME
    return NAME
import json, os
from pathlib import Path
folder = Path(os.environ["RFDETR_STORE"]) / "results" / profile / "02_two"
folder.mkdir(parents=True)
found = {"kind": "verdict", "claim": "C001", "statement": "a|b", "verdict": "consistent"}
found |= {"numbers": {"ap": 0.5}, "why": "seen <here>"}
(folder / "findings.json").write_text(json.dumps({"findings": [found]}))
load()"""
FIGURES = """import base64
from IPython.display import display
pixel = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
display({"image/png": pixel}, raw=True, metadata={"image/png": {"alt": "A curve that rises"}})
chart = '<div class="nas-scatter">drawn <b>here</b></div>'
display({"text/html": chart}, raw=True, metadata={"text/html": {"alt": "Bars <b>"}})"""
BROKEN = "print('so far')\nraise ValueError('broken on purpose')"


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def keys(project: Project, **parameters: object) -> dict[str, str]:
    key_of = Keys(project)
    return {chapter.name: key_of(chapter, parameters) for chapter in read_toc(project)[1]}


@pytest.fixture
def project(tmp_path):
    return write_project(tmp_path, _01_one=notebook(ONE), _02_two=notebook(TWO))


@pytest.fixture(autouse=True)
def own_store(monkeypatch):
    monkeypatch.delenv("RFDETR_STORE", raising=False)
    monkeypatch.delenv("GITHUB_REPOSITORY", raising=False)


def test_life_of_a_book(tmp_path, capsys):
    """Build, unchanged, prose edit, code edit, a chapter removed: the whole way through the real tools."""
    project = write_project(
        tmp_path, _01_one=notebook(ONE), _02_two=notebook(TWO, FIGURES), _03_bad=notebook(BROKEN)
    )
    html = tmp_path / "build/_build/html"
    first = build_book("smoke", project=project)
    said = capsys.readouterr().out
    assert first.exit_code == 1
    assert (first.names("executed"), first.names("failed")) == (["01_one", "02_two"], ["03_bad"])
    assert "01 one ... executed in" in said
    assert (
        "03 bad ... FAILED" in said and "ValueError: broken on purpose" in said and "print('so far')" in said
    )
    assert (tmp_path / "build/failed/smoke/03_bad.ipynb").is_file()
    # The failed chapter is nowhere in the site; the others are.
    assert not (html / "notebooks/03_bad.html").exists()
    assert "value 1 smoke 0" in (html / "notebooks/01_one.html").read_text()
    records = json.loads((tmp_path / "build/records.json").read_text())["smoke"]
    assert records["01_one"]["seconds"] > 0 and records["01_one"]["peak_mb"] > 20
    assert "broken on purpose" in records["03_bad"]["error"]
    # Figures: alternative texts as captions, charts as they are, no address of another host.
    two = (html / "notebooks/02_two.html").read_text()
    assert 'alt="A curve that rises"' in two
    assert "drawn <b>here</b>" in two and 'caption-text">Bars &lt;b&gt;<' in two
    assert (html / "_static/mathjax/tex-chtml.js").is_file()
    for found in html.rglob("*.html"):
        for host in ("cdn.jsdelivr", "cdn.plot.ly", "unpkg.com", "cdnjs"):
            assert host not in found.read_text(), (found, host)
    board = (html / "book/status.html").read_text()
    assert "broken on purpose" in board and "Table 1" in board
    assert '1 <span class="verdict consistent">consistent</span>' in board and 'data-state="failed"' in board
    audit = (html / "book/audit.html").read_text()
    row = audit[audit.index('<tr id="C001"') : audit.index('<tr id="C002"')]
    assert "seen &lt;here&gt;" in row and "ap: 0.5" in row and 'data-verdict="consistent"' in row
    assert '../notebooks/02_two.html#C001"' in row
    assert 'caption-number">Figure 2.1' in two and 'caption-number">Figure 2.2' in two
    # The files of a chapter, its code, and the page that lists them.
    assert json.loads((html / "data/02_two/findings.json").read_text())["findings"]
    data = (html / "book/data.html").read_text()
    assert 'id="02_two"' in data and '"../data/02_two/findings.json"' in data
    assert 'VALUE = <i class="n">1</i>' in (html / "source/minilib/one.html").read_text()
    assert '<a href="../book/data.html#02_two">files of this chapter</a>' in two
    assert not list(html.rglob("*.map"))
    downloads = {path.name for path in (html / "_downloads").rglob("audit.*")}
    assert downloads == {"audit.csv", "audit.json"}

    # Without the failed chapter all is well, and its traces go.
    write_toc(tmp_path, "notebooks/01_one", "notebooks/02_two")
    second = build_book("smoke", project=project)
    assert (second.exit_code, second.names("cached"), second.site_state) == (0, ["01_one", "02_two"], "built")
    assert not list((tmp_path / "build/site-src").rglob("03_bad*"))
    assert "03_bad" not in json.loads((tmp_path / "build/records.json").read_text())["smoke"]
    third = build_book("smoke", project=project)
    assert (third.names("cached"), third.site_state) == (["01_one", "02_two"], "unchanged")

    # Prose: nothing is executed, and the page shows it. A page that leaves takes its HTML with it.
    edit(tmp_path / "notebooks/01_one.ipynb", "Some prose.", "Better prose.")
    write_toc(tmp_path, "notebooks/01_one")
    fourth = build_book("smoke", project=project)
    assert (fourth.names("cached"), fourth.site_state) == (["01_one"], "built")
    text = (html / "notebooks/01_one.html").read_text()
    assert "Better prose." in text and "value 1 smoke 0" in text
    assert not (html / "notebooks/02_two.html").exists()

    # A warning (a link to nowhere) fails the build, also when it is asked again.
    edit(tmp_path / "notebooks/01_one.ipynb", "Better prose.", "A [link](nowhere.md).")
    capsys.readouterr()
    assert build_book("smoke", project=project).exit_code == 1
    assert "nowhere" in capsys.readouterr().out
    assert build_book("smoke", project=project).exit_code == 1


def test_timeout_is_a_failure_without_a_published_copy(tmp_path):
    project = write_project(tmp_path, _01_slow=notebook("import time\ntime.sleep(60)"))
    (chapter,) = read_toc(project)[1]
    kernels = Kernels(tmp_path, str(tmp_path / "store"))
    with kernels.environment():
        outcome = execute(project, "cpu", chapter, {}, "key", kernels, timeout=3)
    assert outcome.state == "failed"
    assert "longer than 3 s" in outcome.error and "time.sleep(60)" in outcome.error
    assert not list((tmp_path / "build/executed").rglob("*.ipynb"))


def test_key_follows_the_package_files_that_a_chapter_imports(project):
    before = keys(project)
    (project.root / "minilib/one.py").write_text("VALUE = 2\n")
    after = keys(project)
    assert after["01_one"] != before["01_one"] and after["02_two"] == before["02_two"]
    (project.root / "minilib/two.py").write_text("NAME = 'deux'\n")
    assert keys(project)["01_one"] == after["01_one"] and keys(project)["02_two"] != before["02_two"]


def test_key_ignores_prose_tags_and_ids_but_not_code_and_data(project):
    before = keys(project)
    path = project.root / "notebooks/01_one.ipynb"
    content = nbformat.read(path, 4)
    content.cells[0].source += "\n\nMore."
    content.cells[2].metadata["tags"] = ["hide-input"]
    content.cells[2]["id"] = "another"
    nbformat.write(content, path)
    assert keys(project) == before
    content.cells[2].source += "\n"
    content.cells[2].metadata["tags"] = ["raises-exception"]
    nbformat.write(content, path)
    assert keys(project)["01_one"] != before["01_one"] and keys(project)["02_two"] == before["02_two"]
    (project.root / "results").mkdir()
    (project.root / "results/run.csv").write_text("1\n")
    assert keys(project)["02_two"] != before["02_two"]


def test_key_depends_on_parameters(project):
    assert len({keys(project, seed=seed)["01_one"] for seed in (1, 2, "1")}) == 3
    assert keys(project, seed=1, a=2) == keys(project, a=2, seed=1)


def test_parameters_are_validated_and_defaults_are_not_injected(project):
    chapter = read_toc(project)[1][0]
    assert chapter_parameters(chapter, "cpu", {"seed": 0, "output_dir": ""}) == {}
    assert chapter_parameters(chapter, "smoke", {"seed": 3}) == {"profile": "smoke", "seed": 3}
    # True equals 1 in Python, but a notebook shows it otherwise.
    assert chapter_parameters(chapter, "cpu", {"seed": False}) == {"seed": False}
    with pytest.raises(UserError, match=r"no parameter sead; its parameters are profile .* seed"):
        chapter_parameters(chapter, "cpu", {"sead": 1})
    bare = project.root / "notebooks/bare.ipynb"
    nbformat.write(new_notebook(cells=[new_code_cell("1")]), bare)
    assert chapter_parameters(Chapter("notebooks/bare", bare), "cpu") == {}
    with pytest.raises(UserError, match="no parameter profile; its parameters are none"):
        chapter_parameters(Chapter("notebooks/bare", bare), "smoke")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"profile": "big"}, "unknown profile 'big'"),
        ({"chapters": ["99_none"]}, "no chapter 99_none in book/_toc.yml; there are 01_one, 02_two"),
        ({"chapters": ["01_one"], "parameters": {"sead": 1}}, "no parameter sead"),
        ({"parameters": {"seed": 1}}, "name the chapter"),
        ({"timeout": 0}, "at least 1"),
    ],
)
def test_wrong_input_stops_before_anything_is_executed(project, arguments, message):
    with pytest.raises(UserError, match=message):
        build_book(project=project, **arguments)
    assert not (project.root / "build/executed").exists()


def test_table_of_contents_with_a_missing_file(project):
    write_toc(project.root, "notebooks/07_missing")
    with pytest.raises(UserError, match="lists notebooks/07_missing"):
        build_book(project=project)
    (project.root / "notebooks/07_missing.ipynb").write_text("{}")
    with pytest.raises(UserError, match=r"cannot read the notebook .*07_missing"):
        build_book(project=project)


def test_two_builds_do_not_collide(project):
    from filelock import FileLock

    (project.root / "build").mkdir()
    entered, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with FileLock(project.root / "build/.book.lock"):
            entered.set()
            leave.wait(10)

    other = threading.Thread(target=hold)
    other.start()
    entered.wait(10)
    try:
        with pytest.raises(UserError, match="another build of this book is running"):
            build_book(project=project)
    finally:
        leave.set()
        other.join()


def test_page_takes_todays_text_and_the_outputs_by_position():
    executed = notebook("1 + 1", "2 + 2")
    executed.cells.insert(2, new_code_cell("profile = 'smoke'", metadata={"tags": ["injected-parameters"]}))
    for number, cell in enumerate(executed.cells[3:]):
        cell.outputs = [new_output("stream", text=f"output {number}")]
    today = notebook("1 + 1", "2 + 2", prose="New prose.")
    today.cells.insert(3, new_markdown_cell("Between.", id="between"))
    record = {"parameters": {"profile": "smoke", "seed": 1}, "profile": "smoke", "seconds": 1.0, "peak_mb": 1}
    record |= {"date": "2026-01-01T00:00:00", "commit": "abc", "machine": "a machine", "key": "0" * 64}
    made = nbformat.reads(page(today, executed, record), 4)
    nbformat.validate(made)
    text = "\n".join(cell.source for cell in made.cells)
    assert "New prose." in text and "Between." in text and "`seed = 1`" in text
    assert "profile = 'smoke'" not in text
    assert [cell.outputs[0].text for cell in made.cells if cell.get("outputs")] == ["output 0", "output 1"]


def test_paper_objects_are_read_from_the_opening():
    stated = (
        "*The paper's objects: Section 3 and Figures 2 and 3 (arXiv v1), with Appendix A; Tables 7,"
        " 8.*\n\nSee Table 1."
    )
    assert (
        paper_objects(notebook(title="04 Training", prose=stated))
        == "Section 3 and Figures 2 and 3 (arXiv v1), with Appendix A; Tables 7, 8"
    )
    assert paper_objects(notebook(title="Table 5: ablation")) == "Table 5"
    assert paper_objects(notebook(title="A chapter")) == ""


def test_page_of_a_chapter_that_was_not_executed_says_so():
    made = nbformat.reads(page(notebook("1"), None, {}), 4)
    assert "was not executed" in made.cells[1].source


def test_figures_without_alternative_text_are_counted():
    plain = notebook("figures()")
    plain.cells[-1].outputs = [
        new_output("display_data", {"image/png": "aa"}),
        new_output("display_data", {"image/png": "aa"}, metadata={"image/png": {"alt": "a text"}}),
        new_output("display_data", {"text/html": "<table></table>"}),
    ]
    assert figures_without_alt(plain) == 1
    plain.cells[-1].metadata["mystnb"] = {"image": {"alt": "for the cell"}}
    assert figures_without_alt(plain) == 0


def test_show_sets_the_alternative_text(monkeypatch):
    import IPython.display
    import matplotlib

    from rfdetr.plots.display import show
    from rfdetr.plots.scatter import Axis, Layer, Scatter

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    shown: list[tuple[object, dict]] = []
    monkeypatch.setattr(IPython.display, "display", lambda figure, **about: shown.append((figure, about)))
    figure = plt.figure()
    show(figure, "Points on a line")
    assert shown[0][1]["metadata"]["image/png"] == {"alt": "Points on a line"}
    assert figure.number not in plt.get_fignums()
    chart = Scatter([Layer("points", [1.0], [2.0])], Axis("x"), Axis("y"))
    show(chart, "A <chart>")
    assert shown[1][1]["metadata"] == {"text/html": {"alt": "A <chart>"}}
    assert 'aria-label="A &lt;chart&gt;"' in shown[1][0].data
    with pytest.raises(ValueError, match="alternative text"):
        show(chart, " ")


def test_stderr_of_a_cell_fails_the_site(tmp_path):
    """A page must not show the warnings of libraries: the gate of the configuration is on."""
    write_project(tmp_path, _01_one=notebook("1"))
    assert "stderr_output: warn" in (tmp_path / "_config.yml").read_text()
    content = notebook("noise()")
    content.cells[-1].outputs = [new_output("stream", name="stderr", text="a warning of a library")]
    files = {
        path.relative_to(tmp_path).as_posix(): path.read_bytes()
        for path in tmp_path.rglob("*")
        if path.is_file()
    }
    files["notebooks/01_one.ipynb"] = nbformat.writes(content).encode()
    files["_toc.yml"] = b"format: jb-book\nroot: book/index\nchapters:\n  - file: notebooks/01_one\n"
    state, messages = build_site(Project(tmp_path, "minilib"), files)
    assert state == "failed" and "stderr was found in the cell outputs" in messages


def test_repository_address(tmp_path, monkeypatch):
    project = Project(tmp_path)
    assert repository_address(project) == ""
    monkeypatch.setenv("GITHUB_REPOSITORY", "someone/book")
    assert repository_address(project) == "https://github.com/someone/book"


def test_parameter_texts():
    given = ["seed=1", "sizes=[1, 2]", "name=a b", "flag=true", "rate=0.5", "empty="]
    assert parse_parameters(given) == {
        **{"seed": 1, "sizes": [1, 2], "name": "a b", "flag": True},
        **{"rate": 0.5, "empty": None},
    }
    for wrong in ("seed", "1=2", "a=[1"):
        with pytest.raises(UserError):
            parse_parameters([wrong])


def test_command_line_exit_code_for_wrong_input(tmp_path, capsys):
    assert main(["book", "--profile", "big"]) == 2
    assert "error: unknown profile 'big'" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"no book/_toc\.yml"):
        find_project(tmp_path)


def test_every_chapter_of_this_book_has_the_common_parameters():
    for chapter in read_toc(find_project(package_root()))[1]:
        assert chapter_parameters(chapter, "cpu", {"seed": 0, "output_dir": ""}) == {}, chapter.name
        assert chapter_parameters(chapter, "smoke") == {"profile": "smoke"}, chapter.name


def test_progress_lines_are_one_block():
    from nbformat.v4 import new_output

    lines = [new_output("stream", name="stdout", text=f"step {n}\n") for n in range(3)]
    figure = new_output("display_data", data={"text/plain": "figure"})
    late = new_output("stream", name="stdout", text="done\n")
    joined = joined_streams([*lines, figure, late])
    assert [output.output_type for output in joined] == ["stream", "display_data", "stream"]
    assert joined[0].text == "step 0\nstep 1\nstep 2\n"


def test_a_long_chapter_tells_its_cell_and_what_it_said_last(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("rfdetr.book.live._PATIENCE", 0.3)
    monkeypatch.setattr("rfdetr.book.live.EVERY", 0.3)
    slow = "import time\nprint('40 of 90 steps, about 25 s left', flush=True)\ntime.sleep(2)"
    project = write_project(tmp_path, _01_one=notebook("1 + 1", slow))
    build_book("smoke", project=project, site=False)
    captured = capsys.readouterr()
    lines = [line.strip() for line in captured.err.splitlines()]
    assert any(re.fullmatch(r"01 one: cell 4 of 4, \d+ s; 40 of 90 steps, about 25 s left", s) for s in lines)
    assert re.fullmatch(r"01 one \.\.\. executed in [\d.]+ s, peak \d+ MB", captured.out.splitlines()[0])
    notebook_text = project.executed("smoke", read_toc(project)[1][0]).read_text()
    assert "40 of 90 steps" in notebook_text


def test_telling_says_how_long_the_rest_takes(monkeypatch, capsys):
    now = [100.0]
    monkeypatch.setattr("rfdetr.experiments.base.telling.time.monotonic", lambda: now[0])
    tell = telling("steps")
    # A run that goes on at step 501 of 900: what was done before does not count.
    for step in range(501, 901):
        now[0] += 0.5
        tell(step, 900, "loss 2.00")
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "501 of 900 steps in 0 s, about 200 s left; loss 2.00"
    assert said[1] == "621 of 900 steps in 60 s, about 140 s left; loss 2.00"
    assert said[-1] == "900 of 900 steps in 200 s; loss 2.00" and len(said) == 5
