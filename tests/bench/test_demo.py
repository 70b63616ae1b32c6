from stepwise_dpo.bench.demo import TABLE_HEADER, DemoResult, run_demo, table_line
from stepwise_dpo.preferences.pairs import load_pairs, save_pairs
from stepwise_dpo.runs.config import PRESETS


def test_a_short_demo_is_measured_before_and_after(tmp_path):
    few = tmp_path / "few.json"
    save_pairs(load_pairs(PRESETS["demo"]["data"])[:4], few)
    still = {**PRESETS["demo"], "data": str(few), "eval_data": str(few), "max_steps": 1, "learning_rate": 0.0}
    (result,) = run_demo({"still": still}, [1], 24)
    assert 0.1 <= result.before <= 0.9
    assert result.after == [result.before]  # a learning rate of 0 changes nothing
    assert result.difference == 0
    assert result.interval == (0, 0)


def test_a_variant_has_a_line_in_the_table():
    result = DemoResult("demo, rate x5", 0.5, [0.5, 0.7], 0.1, (0.05, 0.15), 12.0)
    assert table_line(result).split() == ["demo,", "rate", "x5", "50.0%", "60.0%", "50.0%", "70.0%", "+10.0%",
                            "+5.0%", "to", "+15.0%", "12.0"]  # fmt: skip
    assert TABLE_HEADER.split() == ["before", "after", "lowest", "highest", "change", "95%", "interval", "s/run"]
