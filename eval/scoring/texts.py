"""The family of questions that are answered in free text.

Word F1 needs no library. ROUGE-L, BLEU and CIDEr come from rouge-score, sacrebleu and pycocoevalcap where
these are installed (the extra `text`). All of them split words at spaces and punctuation, so they say little
about Chinese or Japanese.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np

from eval.scoring import parse
from eval.scoring.metrics import Array, GroupSums, Metrics, NumberRows, ratio, text_metrics, text_rows
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
        # Of equal pairs one is scored.
        pairs: dict[tuple[str | None, str], int] = {}
        pair_of = np.fromiter(
            (pairs.setdefault(pair, len(pairs)) for pair in zip(texts, self.truth, strict=True)), np.int64
        )
        exact = np.array([text is not None and parse.same_text(text, truth) for text, truth in pairs])
        f1 = np.array([parse.token_f1(text or "", truth) for text, truth in pairs])
        parsed = np.array([bool(text and text.strip()) for text, _ in pairs])
        rows = text_rows(exact, f1, parsed)
        if not missing_libraries():
            rows = np.hstack(
                [rows, _library_rows([(text or "", truth) for text, truth in pairs], self.truth)]
            )
        return Outcomes(
            rows=NumberRows(rows[pair_of]), right=exact[pair_of], parsed=parsed[pair_of], value=f1[pair_of]
        )

    def metrics(self, sums: Array) -> Metrics:
        metrics = text_metrics(sums[..., :_PLAIN_COLUMNS])
        if sums.shape[-1] == _PLAIN_COLUMNS:
            return metrics
        rouge, cider = np.moveaxis(sums[..., _PLAIN_COLUMNS : _PLAIN_COLUMNS + 2], -1, 0)
        metrics["rouge_l"] = ratio(rouge, sums[..., 0])
        if len(set(self.truth)) > 1:  # else no word tells one truth from another, and every weight is 0
            metrics["cider"] = ratio(cider, sums[..., 0])
        return metrics | {"bleu": _bleu(sums[..., _PLAIN_COLUMNS + 2 :])}

    def wilson_intervals(self, values: dict[str, float], sums: GroupSums) -> dict[str, tuple[float, float]]:
        return mean_intervals({k: v for k, v in values.items() if k not in ("bleu", "cider")}, sums.groups)

    def majority_baseline(self) -> dict[str, float]:
        """Return what always giving the most frequent text (the first of equals) scores."""
        counts = Counter(self.truth)
        commonest, times = counts.most_common(1)[0][0], list(counts.values())
        exact = np.array([parse.same_text(commonest, truth) for truth in counts])
        f1 = np.array([parse.token_f1(commonest, truth) for truth in counts])
        rows = np.repeat(text_rows(exact, f1, np.ones_like(exact)), times, axis=0)
        return baseline_values(text_metrics(rows.sum(axis=0)))

    def random_baseline(self) -> dict[str, float]:
        return {}


class _WordTokenizer:
    """Splits words for rouge-score, whose own tokenizer drops every letter but a to z."""

    def tokenize(self, text: str) -> list[str]:
        return parse.words(text)


@dataclass(frozen=True)
class _References:
    """The true texts that CIDEr compares with, made ready one at a time.

    Its length is the number of questions, which CIDEr weighs words by: equal pairs are scored once.
    """

    texts: Sequence[str]
    questions: int

    def __len__(self) -> int:
        return self.questions

    def __iter__(self) -> Iterator[list[dict[tuple[str, ...], int]]]:
        from pycocoevalcap.cider.cider_scorer import precook

        return ([precook(" ".join(parse.words(text)))] for text in self.texts)


def _library_rows(pairs: Sequence[tuple[str, str]], truths: Sequence[str]) -> Array:
    """Return per pair of answer and truth ROUGE-L, CIDEr-D and the counts that BLEU is computed from (n, 12).

    ROUGE-L is the F measure (C.-Y. Lin, 2004). CIDEr-D (Vedantam et al., 2015) takes its document frequencies
    from `truths`, those of all questions. BLEU's counts: matching n-grams and all n-grams of 1 to 4 words,
    words of the answer and of the truth.
    """
    from pycocoevalcap.cider.cider_scorer import CiderScorer, precook
    from rouge_score.rouge_scorer import RougeScorer
    from sacrebleu.metrics.bleu import BLEU

    scorer, bleu = RougeScorer(["rougeL"], tokenizer=_WordTokenizer()), BLEU()
    rows = np.zeros((len(pairs), 2 + 2 * _BLEU_ORDER + 2))
    for index, (text, truth) in enumerate(pairs):
        counts = bleu.corpus_score([text], [[truth]])
        rows[index, 0] = scorer.score(truth, text)["rougeL"].fmeasure
        rows[index, 2:] = [*counts.counts, *counts.totals, counts.sys_len, counts.ref_len]
    cider = CiderScorer()
    cider.document_frequency = Counter()  # which, asked for what it does not hold, stays as it is
    for truth, times in Counter(truths).items():
        for ngram in precook(" ".join(parse.words(truth))):
            cider.document_frequency[ngram] += times
    cider.crefs = _References([truth for _, truth in pairs], len(truths))
    cider.ctest = (precook(" ".join(parse.words(text))) for text, _ in pairs)
    rows[:, 1] = cider.compute_cider()
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
