import pytest

from stepwise_dpo.ui import colours
from stepwise_dpo.ui.text import counted, duration, plain, shown, signed, three_digits

HOSTILE = "<img src=x onerror=alert(1)> ${alert(1)} {{x}} `x` \\underline{x} \" ' &"


def test_markup_is_escaped():
    text = shown(HOSTILE)
    assert "<" not in text
    assert '"' not in text
    assert "'" not in text
    assert "&lt;img src=x onerror=alert(1)&gt;" in text
    assert "<" not in plain(HOSTILE)


@pytest.mark.parametrize("character", ["\u202e", "\u2066", "\x00", "\x1b", "\u200b", "\ufeff", "\u2028", "\u00ad"])
def test_hidden_characters_become_markers(character):
    assert shown(f"a{character}b") == f'a<span class="mark">U+{ord(character):04X}</span>b'
    assert plain(f"a{character}b") == f"a[U+{ord(character):04X}]b"


@pytest.mark.parametrize(
    "text",
    ["a\nb\tc", "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\u0645\u06cc\u200c\u062e", "\u05e9\u05dc\u05d5\u05dd"],
)
def test_line_breaks_emoji_and_right_to_left_words_stay(text):
    assert shown(text) == text


def test_plain_is_one_line_and_cut():
    assert plain("a\n  b", 10) == "a b"
    assert plain("abcdefghij", 5) == "abcd…"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *((0.98, "+0.98"), (-0.314, "−0.31"), (0.001, "0.00"), (-0.001, "0.00")),
        *((None, "–"), (float("nan"), "–"), (float("inf"), "+∞"), (float("-inf"), "−∞")),
    ],
)
def test_signed(value, text):
    assert signed(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.1711, "0.171"), (-41.23, "−41.2"), (1234.5, "1,234"), (5e-5, "5e−5"), (3.0, "3.00"), (None, "–")],
)
def test_three_digits(value, text):
    assert three_digits(value) == text


@pytest.mark.parametrize(("seconds", "text"), [(8.2, "8 s"), (200, "3 min 20 s"), (7500, "2 h 5 min"), (-3, "0 s")])
def test_duration(seconds, text):
    assert duration(seconds) == text


def test_counted():
    assert [counted(n, "step") for n in (1, 2, 1000)] == ["1 step", "2 steps", "1,000 steps"]


@pytest.mark.parametrize("dark", [False, True])
def test_text_on_every_colour_is_readable(dark):
    for hundredth in range(-100, 101):
        swatch = colours.diverging(hundredth / 100, dark)
        assert colours.contrast(swatch.background, swatch.ink) >= colours.AA


def test_the_scale_is_orange_white_blue_and_clamped():
    backgrounds = [colours.diverging(position).background for position in (-5, -1, 0, 1, 5)]
    assert backgrounds == ["#D55E00", "#D55E00", "#FFFFFF", "#0072B2", "#0072B2"]
