"""Colour: the Okabe-Ito palette, and one diverging scale for everything that has a sign.

Orange (-) through neutral (0) to blue (+), symmetric around zero. Light and dark pages have their own tuning; the text
on a colour always has a contrast of at least 4.5 (WCAG AA).
"""

from typing import NamedTuple

LOSS_COLOURS = {"dpo": "#0072B2", "imitation": "#009E73", "sft": "#009E73", "stepwise": "#D55E00"}
"""By `runs_view.loss_of`; imitation has one colour, with DPO or alone."""

CHOSEN, REJECTED, MARGIN, OTHER, MUTED = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#8A939E"

RUN_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
"""Of runs that are drawn together: the palette, the losses' own colours first."""

DARK_LINES = {CHOSEN: "#4AA8E0", REJECTED: "#EE8236", MARGIN: "#2FBF98", OTHER: "#DD9CC2"}
"""Lighter versions of the same colours, for lines on a dark page."""

_LIGHT = ("#D55E00", "#FFFFFF", "#0072B2")
_DARK = ("#EE8236", "#262C33", "#4AA8E0")
INKS = ("#14191F", "#FFFFFF", "#000000")
"""Of text on the scale's colours: the first one that has enough contrast."""

AA = 4.5


class Swatch(NamedTuple):
    """A colour and the colour of text on it."""

    background: str
    ink: str


def on_dark(colour: str) -> str:
    """The same colour for lines, dots and bars on a dark page."""
    return DARK_LINES.get(colour, colour)


def diverging(position: float, dark: bool = False) -> Swatch:
    """Colour for a position on the scale, from -1 to 1; beyond that it is clamped."""
    low, middle, high = _DARK if dark else _LIGHT
    clamped = max(-1.0, min(1.0, position))
    background = _mix(middle, high if clamped > 0 else low, abs(clamped))
    ink = next((ink for ink in INKS if contrast(ink, background) >= AA), INKS[-1])
    return Swatch(background, ink)


def colour_scale(dark: bool = False) -> list[list[object]]:
    """Write the same scale for plotly: [position from 0 to 1, colour]."""
    low, middle, high = _DARK if dark else _LIGHT
    return [[0.0, low], [0.5, middle], [1.0, high]]


def style(position: float) -> str:
    """Write CSS variables of a row or cell for both themes; page.css picks one."""
    light, dark = diverging(position), diverging(position, dark=True)
    return f"--light:{light.background};--light-ink:{light.ink};--dark:{dark.background};--dark-ink:{dark.ink}"


def contrast(one: str, other: str) -> float:
    """WCAG contrast ratio of two colours, 1 to 21."""
    brighter, darker = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (brighter + 0.05) / (darker + 0.05)


def _channels(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def _mix(start: str, end: str, share: float) -> str:
    mixed = (round(a + (b - a) * share) for a, b in zip(_channels(start), _channels(end), strict=True))
    return "#" + "".join(f"{channel:02X}" for channel in mixed)


def _luminance(colour: str) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in _channels(colour))]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
