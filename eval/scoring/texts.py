"""The family of questions that are answered in free text.

Word F1 needs no library. ROUGE-L, BLEU and CIDEr come from rouge-score, sacrebleu and pycocoevalcap where
these are installed (the extra `text`). All of them split words at spaces and punctuation, so they say little
about Chinese or Japanese.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np

from eval.scoring import parse
from eval.scoring.metrics import Array, Metrics, ratio, text_metrics, text_rows
from eval.scoring.outcomes import AnswerTexts, Outcomes, baseline_values, mean_intervals

LIBRARIES = ("rouge_score", "sacrebleu", "pycocoevalcap")
_BLEU_ORDER = 4  # the longest n-grams that BLEU counts
_PLAIN_COLUMNS = 4  # columns of `metrics.text_rows`; then ROUGE-L and CIDEr, then what BLEU is made of


def missing_libraries() -> list[str]:
    """Return the libraries of the extra `text` that are not installed."""
    return [name for name in LIBRARIES if find_spec(name) is None]


@dataclass(frozen=True)
class TextFamily:
    """Scores free text against one true text per question."""

    truth: Sequence[str]
    headline: str = "token_f1"

    def evaluate(self, texts: AnswerTexts) -> Outcomes:
        exact = [
            text is not None and parse.same_text(text, t) for text, t in zip(texts, self.truth, strict=True)
        ]
        f1 = [parse.token_f1(text or "", t) for text, t in zip(texts, self.truth, strict=True)]
        parsed = [bool(text and text.strip()) for text in texts]
        rows = text_rows(exact, f1, parsed)
        if not missing_libraries():
            rows = np.hstack([rows, _library_rows([text or "" for text in texts], self.truth)])
        return Outcomes(rows, right=np.array(exact), parsed=np.array(parsed), value=np.array(f1))

    def metrics(self, sums: Array) -> Metrics:
        metrics = text_metrics(sums[..., :_PLAIN_COLUMNS])
        if sums.shape[-1] == _PLAIN_COLUMNS:
            return metrics
        rouge, cider = np.moveaxis(sums[..., _PLAIN_COLUMNS : _PLAIN_COLUMNS + 2], -1, 0)
        metrics["rouge_l"] = ratio(rouge, sums[..., 0])
        if len(set(self.truth)) > 1:  # else no word tells one truth from another, and every weight is 0
            metrics["cider"] = ratio(cider, sums[..., 0])
        return metrics | {"bleu": _bleu(sums[..., _PLAIN_COLUMNS + 2 :])}

    def wilson_intervals(self, values: dict[str, float], sums: Array) -> dict[str, tuple[float, float]]:
        return mean_intervals({k: v for k, v in values.items() if k not in ("bleu", "cider")}, len(sums))

    def majority_baseline(self) -> dict[str, float]:
        """Return what always giving the most frequent text (the first of equals) scores."""
        commonest = Counter(self.truth).most_common(1)[0][0]
        exact = [parse.same_text(commonest, t) for t in self.truth]
        rows = text_rows(exact, [parse.token_f1(commonest, t) for t in self.truth], [True] * len(exact))
        return baseline_values(text_metrics(rows.sum(axis=0)))

    def random_baseline(self) -> dict[str, float]:
        return {}


class _WordTokenizer:
    """Splits words for rouge-score, whose own tokenizer drops every letter but a to z."""

    def tokenize(self, text: str) -> list[str]:
        return parse.words(text)


def _library_rows(texts: Sequence[str], truths: Sequence[str]) -> Array:
    """Return per question ROUGE-L, CIDEr-D and the counts that BLEU is computed from (n, 12).

    ROUGE-L is the F measure (C.-Y. Lin, 2004). CIDEr-D (Vedantam et al., 2015) takes its document frequencies
    from the truths. BLEU's counts: matching n-grams and all n-grams of 1 to 4 words, words of the answer and
    of the truth.
    """
    from pycocoevalcap.cider.cider import Cider
    from rouge_score.rouge_scorer import RougeScorer
    from sacrebleu.metrics.bleu import BLEU

    scorer, bleu = RougeScorer(["rougeL"], tokenizer=_WordTokenizer()), BLEU()
    rows = np.zeros((len(texts), 2 + 2 * _BLEU_ORDER + 2))
    for index, (text, truth) in enumerate(zip(texts, truths, strict=True)):
        counts = bleu.corpus_score([text], [[truth]])
        rows[index, 0] = scorer.score(truth, text)["rougeL"].fmeasure
        rows[index, 2:] = [*counts.counts, *counts.totals, counts.sys_len, counts.ref_len]
    wanted = {index: [" ".join(parse.words(truth))] for index, truth in enumerate(truths)}
    given = {index: [" ".join(parse.words(text))] for index, text in enumerate(texts)}
    rows[:, 1] = Cider().compute_score(wanted, given)[1]
    return rows


def _bleu(sums: Array) -> Array:
    """Return corpus BLEU, 0..1, from sums (..., 10); NaN where no answer has four words.

    Papineni et al., 2002; as sacrebleu computes it, smoothed exponentially.
    """
    from sacrebleu.metrics.bleu import BLEU

    flat = sums.reshape(-1, sums.shape[-1]).round().astype(int)
    values = [
        BLEU.compute_bleu(
            correct=row[:_BLEU_ORDER].tolist(),
            total=row[_BLEU_ORDER : 2 * _BLEU_ORDER].tolist(),
            sys_len=int(row[-2]),
            ref_len=int(row[-1]),
            smooth_method="exp",
        ).score
        / 100
        if row[2 * _BLEU_ORDER - 1] > 0
        else np.nan
        for row in flat
    ]
    return np.array(values).reshape(sums.shape[:-1])
