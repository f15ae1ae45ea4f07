"""Terms of the glossary: found in all their forms, linked once a page, never in code or headings."""

import pytest
from docutils import nodes
from docutils.utils import new_document
from sphinx.addnodes import pending_xref

from rfdetr.book import bibliography
from rfdetr.book.terms import glossary_terms, pattern, refine
from rfdetr.sources import package_root

GLOSSARY = (package_root() / "book/glossary.md").read_text(encoding="utf-8")
WORDS = glossary_terms(GLOSSARY)


def test_every_term_is_looked_for_but_the_ordinary_words():
    assert {"query", "Kendall's tau", "FP16", "supernet"} <= set(WORDS)
    assert WORDS["INT8"] == "FP16, FP32, INT8, BF16"
    assert not {"group", "rate", "latency", "buffered"} & set(WORDS)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Queries and a query of Kendall’s τ", ["Queries", "query", "Kendall’s τ"]),
        ("two class tokens, then tokens", ["class tokens", "tokens"]),
        ("31.8 GFLOPs, 15.9 GMACs, APs, AP50, AP", ["GFLOPs", "GMACs", "AP"]),
        ("a windowed block, batch-window, sub-networks", ["sub-networks"]),
    ],
)
def test_forms_of_a_term(text, found):
    assert [match[0] for match in pattern(WORDS).finditer(text)] == found


def page(*parts):
    document = new_document("page")
    document.extend(parts)
    refine(document, WORDS, "notebooks/01_x")
    return document


def links(document):
    return [(link.astext(), link["reftarget"]) for link in document.findall(pending_xref)]


def test_the_first_use_in_running_text_is_linked():
    document = page(
        nodes.title("", "The supernet"),
        nodes.literal_block("", "supernet"),
        nodes.paragraph("", "", nodes.literal("", "supernet"), nodes.Text(" in a Supernet: ")),
        nodes.paragraph("", "", nodes.emphasis("", "Tokens"), nodes.Text(" of a supernet, a token.")),
    )
    assert links(document) == [("Supernet", "supernet"), ("Tokens", "token")]
    said = "The supernet\n\nsupernet\n\nsupernet in a Supernet: \n\nTokens of a supernet, a token."
    assert document.astext() == said


def test_a_term_that_the_author_linked_is_not_linked_again():
    by_hand = pending_xref("", nodes.inline("", "weights shared"), reftype="term", reftarget="weight sharing")
    document = page(nodes.paragraph("", "", by_hand, nodes.Text(" is weight sharing.")))
    assert links(document) == [("weights shared", "weight sharing")]


def test_per_cent_signs_stay_with_their_numbers():
    document = page(nodes.paragraph("", "", nodes.Text("5 % or 7%, "), nodes.literal("", "9 %")))
    assert document.astext() == "5\N{NO-BREAK SPACE}% or 7\N{NO-BREAK SPACE}%, 9 %"


def test_labels_of_references_are_those_of_the_text_and_differ():
    from pybtex.database import parse_file

    entries = parse_file(str(package_root() / "book/references.bib")).entries
    labels = list(bibliography.labels(entries.values()))
    assert len(set(labels)) == len(labels) == len(entries)
    found = dict(zip(entries, labels, strict=True))
    assert found["kuhn1955hungarian"] == "Kuhn, 1955"
    assert found["yu2019slimmable"] == "Yu and Huang, 2019"
    assert found["robinson2025rfdetr"] == "Robinson et al., 2025"
    assert found["yu2020bignas"][:-1] == "Yu et al., 2020"
