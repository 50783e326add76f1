from __future__ import annotations

import pytest

from handgraph.errors import ConfigError
from handgraph.schedule import Stage


def stage(**fields: object) -> Stage:
    defaults = {"name": "all", "epochs": 10, "learning_rate": 1e-3, "loss_weights": {"joints": 1.0}}
    return Stage(**(defaults | fields))


def test_exponential_schedule_falls_after_each_whole_epoch() -> None:
    paper = stage(schedule="exponential", decay=0.96)
    assert paper.learning_rate_at(0.0) == paper.learning_rate_at(0.0999) == 1e-3
    assert paper.learning_rate_at(0.1) == pytest.approx(1e-3 * 0.96)
    assert paper.learning_rate_at(0.3) == pytest.approx(1e-3 * 0.96**3)  # 0.3 * 10 rounds to just under 3


def test_cosine_schedule_warms_up_then_reaches_zero() -> None:
    cosine = stage(schedule="cosine", warmup=0.2)
    assert cosine.learning_rate_at(0.1) == pytest.approx(0.5e-3)
    assert cosine.learning_rate_at(0.2) == pytest.approx(1e-3)
    assert cosine.learning_rate_at(0.6) == pytest.approx(0.5e-3)
    assert cosine.learning_rate_at(1.0) == pytest.approx(0.0, abs=1e-12)


def test_prefixes_name_what_learns() -> None:
    assert stage().learns("backbone.conv.weight")
    refinement = stage(trains=("refine.", "head."))
    assert refinement.learns("head.bias")
    assert not refinement.learns("backbone.conv.weight")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"epochs": 0}, "stage 'all': epochs is 0, expected more than 0"),
        ({"warmup": 1.0}, "warmup is 1.0, expected a fraction in"),
        ({"loss_weights": {}}, "loss_weights is {}, expected at least one loss term"),
    ],
)
def test_a_senseless_stage_says_why(fields: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        stage(**fields)
