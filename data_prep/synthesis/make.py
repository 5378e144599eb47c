"""Makes the pictures: plans jobs, paints, measures, judges and writes them; rejected ones are tried anew."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from data_prep.synthesis.filter import Filter, Made
from data_prep.synthesis.painted import Job, Painter, Rejected
from data_prep.synthesis.plan import Planner
from data_prep.synthesis.writer import Outcome, PictureWriter

TRIES = 3
"""How many jobs a picture may take: where one is rejected, another photo is tried."""


def accept(job: Job, made: Made) -> str | None:
    """Judge a picture where no model looks at it: none is rejected."""
    return None


@dataclass(frozen=True)
class Workshop:
    """All that a picture passes. `judge` says why a picture that was measured cannot be used, None if it can;
    it and the painter are called from `workers` threads."""

    painter: Painter
    planner: Planner
    filter: Filter
    writer: PictureWriter
    judge: Callable[[Job, Made], str | None] = accept
    workers: int = 1

    def make(self, kinds: Sequence[str | None], show: Callable[[Outcome], None]) -> list[Outcome]:
        """Make a picture for each of `kinds`, except those that an earlier run has made.

        Which pictures are made depends neither on the threads nor on where an earlier run was stopped.

        Args:
            kinds: One for each picture, in the order of the jobs; None for new surroundings.
            show: Called with each outcome, also those of the earlier run.

        Returns:
            What became of each job, in their order.
        """
        done = self.writer.begin()
        outcomes: dict[int, Outcome] = {}
        wanted = list(kinds)
        pool = ThreadPoolExecutor(self.workers)
        try:
            for _ in range(TRIES):
                jobs = [self.planner.job(kind) for kind in wanted]
                for outcome in self._outcomes(jobs, done, pool):
                    outcomes[outcome.number] = outcome
                    show(outcome)
                wanted = [job.kind for job in jobs if outcomes[job.number].image is None]
        finally:
            pool.shutdown(cancel_futures=True)
        return [outcomes[number] for number in sorted(outcomes)]

    def _outcomes(
        self, jobs: Sequence[Job], done: dict[int, Outcome], pool: ThreadPoolExecutor
    ) -> Iterator[Outcome]:
        yield from (done[job.number] for job in jobs if job.number in done)
        missing = [job for job in jobs if job.number not in done]
        size = self.painter.batch_size
        batches = [missing[start : start + size] for start in range(0, len(missing), size)]
        for results in pool.map(self._do, batches):
            for outcome in results:
                self.writer.note(outcome)
                yield outcome

    def _do(self, jobs: Sequence[Job]) -> list[Outcome]:
        """Do some jobs up to their files: what a thread hands on must not hold pixels."""
        outcomes = []
        for job, painted in zip(jobs, self.painter.paint(jobs), strict=True):
            made = painted if isinstance(painted, Rejected) else self.filter.measure(job, painted)
            if isinstance(made, Made) and (why := self.judge(job, made)) is not None:
                made = Rejected(why)
            outcomes.append(self.writer.save(job, made))
        return outcomes
