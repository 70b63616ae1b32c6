"""What limits a slip: headers that say what the page may do in a browser; no fetching of what a request names."""

import gradio as gr
from gradio import processing_utils
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Gradio compiles its HTML templates and writes its styles in the page: both need "unsafe". What remains is worth
# having: no script, no connection and no form reaches another host, so what a page holds can't be sent anywhere.
_OWN = (
    "default-src 'self'",
    "script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:",
    "style-src 'self' 'unsafe-inline'",
    "img-src 'self' data: blob:",
    "font-src 'self' data:",
    "media-src 'self' data: blob:",
    "connect-src 'self' data: blob:",
    "worker-src 'self' blob:",
    "object-src 'none'",
    "base-uri 'self'",
    "form-action 'self'",
)
_FRAMES, _SPACE_FRAMES = "frame-ancestors 'self'", "frame-ancestors 'self' https://huggingface.co https://*.hf.space"


def headers(on_space: bool) -> dict[str, str]:
    """Say every answer's security headers.

    Args:
        on_space: whether huggingface.co shows the page in a frame, which is refused everywhere else.
    """
    return {
        "Content-Security-Policy": "; ".join([*_OWN, _SPACE_FRAMES if on_space else _FRAMES]),
        "X-Content-Type-Options": "nosniff",
        # A link's address holds the chosen run and example; other hosts need not know.
        "Referrer-Policy": "same-origin",
        "Permissions-Policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
        "Cross-Origin-Opener-Policy": "unsafe-none" if on_space else "same-origin",
    }


def fetch_nothing() -> None:
    """Keep Gradio from fetching a file that a request names by its address: any address, of any size, for anybody."""
    processing_utils.async_ssrf_protected_download = _refuse_address


async def _refuse_address(url: str, cache_dir: str) -> str:
    raise gr.Error("send the file itself, not its address", print_exception=False)


class SecurityHeaders:
    """ASGI middleware that adds `headers` to every answer; streams pass through untouched.

    Args:
        app: what answers.
        on_space: as for `headers`.
    """

    def __init__(self, app: ASGIApp, on_space: bool = False) -> None:
        self._app = app
        self._headers = headers(on_space)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(self._headers)
            await send(message)

        await self._app(scope, receive, send_with_headers if scope["type"] == "http" else send)
