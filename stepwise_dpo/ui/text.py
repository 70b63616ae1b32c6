"""Text and numbers as the page shows them: other people's text is inert, numbers read the same everywhere."""

import html
import math
import unicodedata

MINUS = "\N{MINUS SIGN}"

_KEPT = {"\n", "\t"}
# Joiners build emoji and Persian words; every other format character can hide or reorder what a reader sees.
_JOINERS = {"\N{ZERO WIDTH JOINER}", "\N{ZERO WIDTH NON-JOINER}"}
_HIDDEN_CATEGORIES = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}


def shown(text: str) -> str:
    """Escape text for HTML; control and direction-changing characters become visible markers such as U+202E."""
    return "".join(
        f'<span class="mark">U+{ord(character):04X}</span>' if _hides(character) else html.escape(character, quote=True)
        for character in text
    )


def plain(text: str, limit: int | None = None) -> str:
    """Escape text for one line of a chart or an attribute; hidden characters become markers, long text is cut."""
    if limit is not None and len(text) > limit:
        text = text[: limit - 1] + "…"
    line = "".join(f"[U+{ord(c):04X}]" if _hides(c) else c for c in text)
    return html.escape(" ".join(line.split()), quote=True)


def signed(value: float | None, digits: int = 2) -> str:
    """Write +0.98, −0.31 or 0.00; a value that rounds to zero has no sign, and no value is a dash."""
    if value is None or not math.isfinite(value):
        return "–" if value is None or math.isnan(value) else ("+∞" if value > 0 else f"{MINUS}∞")
    rounded = f"{abs(value):.{digits}f}"
    if float(rounded) == 0:
        return rounded
    return ("+" if value > 0 else MINUS) + rounded


def three_digits(value: float | None) -> str:
    """Write a number with three significant digits, plainly where that is readable: 0.171, 41.2, 1,230, 5e−05."""
    if value is None or not math.isfinite(value):
        return "–"
    size = abs(value)
    if size == 0:
        text = "0"
    elif size < 1e-3 or size >= 1e6:
        mantissa, exponent = f"{size:.2e}".split("e")
        text = f"{float(mantissa):g}e{int(exponent)}"
    elif size >= 100:
        text = f"{size:,.0f}"
    else:
        text = f"{size:.{max(0, 2 - math.floor(math.log10(size)))}f}"
    return (MINUS if value < 0 else "") + text.replace("-", MINUS)


def duration(seconds: float) -> str:
    """Write a duration in the one or two units that matter: 8 s, 3 min 20 s, 2 h 5 min."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def counted(count: int, noun: str) -> str:
    """Write 1 step, 2 steps, 1,000 steps."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def _hides(character: str) -> bool:
    if character in _KEPT or character in _JOINERS:
        return False
    return unicodedata.category(character) in _HIDDEN_CATEGORIES
