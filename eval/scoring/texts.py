"""Questions that are answered in free words.

Word F1 needs no library. ROUGE-L, BLEU and CIDEr come from rouge-score, sacrebleu and pycocoevalcap where
these are installed (the extra `text`). All of them split words at spaces and punctuation, so they say little
of Chinese or Japanese.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np

from eval.scoring import metrics as m
from eval.scoring import parse
from eval.scoring.outcomes import Outcome, Texts, floats, shares

EXTRA = ("rouge_score", "sacrebleu", "pycocoevalcap")
_ORDER = 4  # of BLEU's n-grams
_PLAIN = 4  # columns of `metrics.text_rows`; then ROUGE-L and CIDEr, then what BLEU is made of


def missing_libraries() -> list[str]:
    return [name for name in EXTRA if find_spec(name) is None]


@dataclass(frozen=True)
class TextFamily:
    truth: Sequence[str]
    headline: str = "token_f1"

    def read(self, texts: Texts) -> Outcome:
        exact = [
            text is not None and parse.same_text(text, t) for text, t in zip(texts, self.truth, strict=True)
        ]
        f1 = [parse.token_f1(text or "", t) for text, t in zip(texts, self.truth, strict=True)]
        parsed = [bool(text and text.strip()) for text in texts]
        rows = m.text_rows(exact, f1, parsed)
        if not missing_libraries():
            rows = np.hstack([rows, _compared([text or "" for text in texts], self.truth)])
        return Outcome(rows, right=np.array(exact), parsed=np.array(parsed), value=np.array(f1))

    def metrics(self, sums: m.Array) -> m.Metrics:
        found = m.text_metrics(sums[..., :_PLAIN])
        if sums.shape[-1] == _PLAIN:
            return found
        rouge, cider = np.moveaxis(sums[..., _PLAIN : _PLAIN + 2], -1, 0)
        found["rouge_l"] = m.ratio(rouge, sums[..., 0])
        if len(set(self.truth)) > 1:  # else no word tells one truth from another, and every weight is 0
            found["cider"] = m.ratio(cider, sums[..., 0])
        return found | {"bleu": _bleu(sums[..., _PLAIN + 2 :])}

    def spread(self, point: dict[str, float], sums: m.Array) -> dict[str, tuple[float, float]]:
        return shares({k: v for k, v in point.items() if k not in ("bleu", "cider")}, len(sums))

    def majority(self) -> dict[str, float]:
        """Always the most frequent text (the first of equals)."""
        most = Counter(self.truth).most_common(1)[0][0]
        exact = [parse.same_text(most, t) for t in self.truth]
        rows = m.text_rows(exact, [parse.token_f1(most, t) for t in self.truth], [True] * len(exact))
        return floats(m.text_metrics(rows.sum(axis=0)))

    def random(self) -> dict[str, float]:
        return {}


class _Words:
    """rouge-score's own tokenizer drops every letter but a to z."""

    def tokenize(self, text: str) -> list[str]:
        return parse.words(text)


def _compared(texts: Sequence[str], truths: Sequence[str]) -> m.Array:
    """Per question: ROUGE-L (F measure; C.-Y. Lin, 2004), CIDEr-D (Vedantam et al., 2015; its document
    frequencies are those of the truths), and BLEU's counts: matching n-grams and all n-grams of 1 to 4 words,
    words of the answer and of the truth."""
    from pycocoevalcap.cider.cider import Cider
    from rouge_score.rouge_scorer import RougeScorer
    from sacrebleu.metrics.bleu import BLEU

    scorer, bleu = RougeScorer(["rougeL"], tokenizer=_Words()), BLEU()
    rows = np.zeros((len(texts), 2 + 2 * _ORDER + 2))
    for index, (text, truth) in enumerate(zip(texts, truths, strict=True)):
        counts = bleu.corpus_score([text], [[truth]])
        rows[index, 0] = scorer.score(truth, text)["rougeL"].fmeasure
        rows[index, 2:] = [*counts.counts, *counts.totals, counts.sys_len, counts.ref_len]
    wanted = {index: [" ".join(parse.words(truth))] for index, truth in enumerate(truths)}
    given = {index: [" ".join(parse.words(text))] for index, text in enumerate(texts)}
    rows[:, 1] = Cider().compute_score(wanted, given)[1]
    return rows


def _bleu(sums: m.Array) -> m.Array:
    """Corpus BLEU (Papineni et al., 2002; sacrebleu's, smoothed exponentially), 0..1, from sums (..., 10);
    NaN where no answer has four words."""
    from sacrebleu.metrics.bleu import BLEU

    flat = sums.reshape(-1, sums.shape[-1]).round().astype(int)
    values = [
        BLEU.compute_bleu(
            correct=row[:_ORDER].tolist(),
            total=row[_ORDER : 2 * _ORDER].tolist(),
            sys_len=int(row[-2]),
            ref_len=int(row[-1]),
            smooth_method="exp",
        ).score
        / 100
        if row[2 * _ORDER - 1] > 0
        else np.nan
        for row in flat
    ]
    return np.array(values).reshape(sums.shape[:-1])
