"""Shopping: counts and prices, a coupon, and then the total, the change or the share of each friend."""

import random
import re
from collections.abc import Sequence

from stepwise_dpo.preferences.families.wording import NAMES, Move, Ops, Problem, read_one, read_sentences
from stepwise_dpo.preferences.programs import Op, Operand, Ref, run

_SHOPPING = {
    "buy": (
        "{name} buys {rest}.",
        "{name} orders {rest}.",
        "At the market, {name} picks {rest}.",
        "In a small shop, {name} takes {rest}.",
    ),
    "coupon": ("A coupon takes {n} {currency} off.", "The clerk takes {n} {currency} off the price."),
    "total": ("How much does {name} pay?", "What does {name} owe?", "How many {currency} does that cost?"),
    "change": (
        "{name} pays with {n} {currency}; how much comes back?",
        "How much change does {name} get from {n} {currency}?",
    ),
    "share": (
        "{n} friends share the cost equally; how much does each of them pay?",
        "What does each of {n} friends pay if they split the cost equally?",
    ),
}
_GOODS = (
    ("pen", "pens"), ("mug", "mugs"), ("lamp", "lamps"), ("scarf", "scarves"), ("notebook", "notebooks"),
    ("candle", "candles"), ("basket", "baskets"), ("cap", "caps"), ("puzzle", "puzzles"), ("melon", "melons"),
    ("ticket", "tickets"), ("plant", "plants"), ("towel", "towels"), ("kite", "kites"),
)  # fmt: skip
_MANY, _ONE = "{n} {goods} at {price} {currency} each", "one {goods} for {price} {currency}"


def _settle(items: Sequence[tuple[int, int]], coupon: int | None, end: Move | None) -> Ops:
    """Operations for items (count, price), a coupon, and an end: ("change", paid) or ("share", friends)."""
    ops: list[Op] = []
    total: Operand | None = None
    for count, price in items:
        cost: Operand = price
        if count != 1:
            ops.append(Op("*", price, count))
            cost = Ref(len(ops) - 1)
        if total is not None:
            ops.append(Op("+", total, cost))
            cost = Ref(len(ops) - 1)
        total = cost
    if coupon is not None and total is not None:
        ops.append(Op("-", total, coupon))
        total = Ref(len(ops) - 1)
    if end is not None and total is not None:
        ops.append(Op("-", end[1], total) if end[0] == "change" else Op("/", total, end[1]))
    return tuple(ops)


def draw(rng: random.Random, n: int, limit: int) -> Problem | None:
    """Draw a problem with n operations; None in a dead end."""
    kind = rng.choice(("total", "change", "share"))
    with_coupon = rng.randrange(3) == 0
    left = n - with_coupon - (kind != "total")
    highest = max(3, 3 * limit // (2 * n + 2))
    items: list[tuple[int, int]] = []
    while left > 0 or not items:
        single = rng.randrange(3) == 0
        left -= (not single) + bool(items)
        count = 1 if single else rng.randrange(2, 10)
        items.append((count, rng.randrange(2, max(2, highest // count) + 1)))
    if left < 0 or all(count == 1 for count, _ in items):
        return None
    so_far = run(_settle(items, None, None), limit)
    if not so_far:
        return None
    total = so_far[-1].result
    coupon = rng.randrange(2, max(3, total // 2)) if with_coupon else None
    due = total - (coupon or 0)
    end: Move | None = None
    if kind == "change":
        notes = [note for note in (5, 10, 20, 50, 100, 200, 500, 1000) if due < note <= limit] or [limit]
        end = ("change", rng.choice(notes[:2]))
    elif kind == "share":
        friends = [k for k in range(2, 10) if due % k == 0]
        if not friends:
            return None
        end = ("share", rng.choice(friends))
    name, currency = rng.choice(NAMES), rng.choice(("dollars", "euros", "pounds", "coins"))
    goods = list(_GOODS)
    rng.shuffle(goods)
    parts = [
        (_MANY if count > 1 else _ONE).format(n=count, goods=good[count > 1], price=price, currency=currency)
        for (count, price), good in zip(items, goods, strict=False)
    ]
    text = " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
    sentences = [rng.choice(_SHOPPING["buy"]).format(name=name, rest=text)]
    if coupon:
        sentences.append(rng.choice(_SHOPPING["coupon"]).format(n=coupon, currency=currency))
    sentences.append(rng.choice(_SHOPPING[kind]).format(name=name, n=end[1] if end else 0, currency=currency))
    return Problem(" ".join(sentences), _settle(items, coupon, end))


def read(prompt: str) -> Ops | None:
    """Read what a prompt of this family demands; None if it is none."""
    sentences = read_sentences(prompt, _SHOPPING)
    if sentences is None or [kind for kind, _ in sentences] not in (
        ["buy", *coupon, end] for coupon in ([], ["coupon"]) for end in ("total", "change", "share")
    ):
        return None
    items = []
    for part in re.split(r", | and ", sentences[0][1]["rest"]):
        item = read_one((_MANY, _ONE), part)
        if item is None:
            return None
        items.append((int(item.get("n", 1)), int(item["price"])))
    coupon = int(sentences[1][1]["n"]) if len(sentences) == 3 else None
    kind, slots = sentences[-1]
    return _settle(items, coupon, None if kind == "total" else (kind, int(slots["n"])))
