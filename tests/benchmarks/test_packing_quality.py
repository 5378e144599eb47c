"""When benchmarks.packing_quality calls packed and unpacked different."""

from benchmarks.packing_quality import by_chance, different, unexplained


def test_tasks_whose_interval_leaves_zero_out():
    def task(name, low, high):
        return {"task": name, "headline": "exact", "difference": {"exact": {"low": low, "high": high}}}

    tasks = [task("count", -0.2, -0.1), task("kind", -0.1, 0.1), task("where", 0.0, 0.2)]
    silent = {"task": "describe", "headline": "f1", "difference": {}}
    assert different([*tasks, silent]) == ["count"]


def test_chance_is_the_binomial_tail():
    assert abs(by_chance(0, 6) - 1) < 1e-12
    assert abs(by_chance(1, 6) - (1 - 0.95**6)) < 1e-12
    assert abs(by_chance(6, 6) - 0.05**6) < 1e-15


def test_neither_chance_nor_the_seed_may_explain_it():
    assert not unexplained(1, 0, 6)  # 26% by chance
    assert unexplained(3, 0, 6)  # 0.2%
    assert not unexplained(3, 3, 6)  # two seeds differ as much
