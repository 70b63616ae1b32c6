"""Who a visitor is: whoever holds the secret that the page once gave to this browser. Nobody logs in."""

import re
import secrets

_TOKEN = re.compile(r"[A-Za-z0-9_-]{43}")


def known_or_new(token: object) -> str:
    """Keep a browser's secret, or make one of 256 bits where it has none or sends something else."""
    return token if isinstance(token, str) and _TOKEN.fullmatch(token) else secrets.token_urlsafe(32)
