"""Names in a text: whole words, whatever their case and accents."""

from __future__ import annotations

from causaledit.facts.answers import mentions, normalise


def test_mentions_takes_whole_words_in_any_case():
    assert mentions("the CÔTE d'ivoire", ["cote D'Ivoire"])
    assert not mentions("Alexandrian", ["Alexandria"])
    assert not mentions("anything", ["", " "])
    assert normalise("  Ünïted\n Stâtes ") == "united states"
