from stepwise_dpo.bench.demo import DemoResult, demo_table, run_demo
from stepwise_dpo.runs.config import PRESETS


def test_a_short_demo_is_measured_before_and_after():
    (result,) = run_demo({"still": {**PRESETS["demo"], "max_steps": 1, "learning_rate": 0.0, "generate": 0}}, [1], 24)
    assert 0.1 <= result.before <= 0.9
    assert result.after == [result.before]  # a learning rate of 0 changes nothing
    assert result.difference == 0
    assert result.interval == (0, 0)


def test_the_table_has_a_line_per_variant():
    result = DemoResult("demo, rate x5", 0.5, [0.5, 0.7], 0.1, (0.05, 0.15), 12.0)
    header, line = demo_table([result]).splitlines()
    assert line.split() == ["demo,", "rate", "x5", "50.0%", "60.0%", "50.0%", "70.0%", "+10.0%",
                            "+5.0%", "to", "+15.0%", "12.0"]  # fmt: skip
    assert header.split() == ["before", "after", "lowest", "highest", "change", "95%", "interval", "s/run"]
