"""TF-IDF weights of words: what a text backbone has to beat."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headstart.core.errors import BadFilesError
from headstart.core.progress import Reporter
from headstart.data.content import UndecodableError, text_of
from headstart.data.inputs import PlainRows

if TYPE_CHECKING:
    from headstart.data.dataset import Split


_MOST = 50_000
"""Training texts that the baseline learns from: rows of words are quickly fitted."""


def tf_idf(train: Split) -> PlainRows | None:
    """Return TF-IDF weights of words and pairs of words, by the words of the training texts.

    Words are in lower case; logarithmic counts, rows of unit length (scikit-learn's
    ``TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2))``). None where there is no word.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    weights = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2))
    try:
        weights.fit(_texts(train))
    except ValueError:  # an empty vocabulary
        return None

    def rows(split: Split, reporter: Reporter) -> Any:
        with reporter.task("count words", len(split), "texts") as task:
            found = weights.transform(_texts(split))
            task.advance(len(split))
        return found

    words = len(weights.vocabulary_)
    return PlainRows("TF-IDF", f"TF-IDF weights of {words:,} words and pairs of words", rows, _MOST)


def _texts(split: Split) -> list[str]:
    found = []
    for i in range(len(split)):
        try:
            found.append(text_of(split.content(i)))
        except (UndecodableError, BadFilesError):  # whoever embeds it says so
            found.append("")
    return found


__all__ = ["tf_idf"]
