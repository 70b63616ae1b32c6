"""The workbench in a browser: `python app.py`, `gradio app.py`, or a Hugging Face Space."""

import argparse
import os
import sys

# Read by the libraries when they are imported: nothing here calls home.
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
# Threads that wait by spinning keep those of the training process, the browser and each other from the cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from stepwise_dpo.ui.heavy import import_learning_soon
from stepwise_dpo.ui.page import build_app, launch_options  # after the environment


def parse_options(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Step-level preference optimisation in the browser.")
    runs_dir = os.environ.get("STEPWISE_DPO_RUNS_DIR", "runs")
    parser.add_argument(
        "--runs-dir", default=runs_dir, metavar="DIR", help="where runs are kept (default: %(default)s)"
    )
    host = "0.0.0.0" if os.environ.get("SPACE_ID") else os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1")
    parser.add_argument("--host", default=host, metavar="ADDRESS", help="address to listen on (default: %(default)s)")
    # Without --port Gradio reads GRADIO_SERVER_PORT, or takes the first free port from 7860.
    parser.add_argument("--port", type=int, metavar="N", help="port (default: GRADIO_SERVER_PORT, or 7860 and up)")
    parser.add_argument("--open", action="store_true", help="open the page in the browser")
    return parser.parse_args(arguments)


# Whoever imports this module has a command line of their own.
options = parse_options(sys.argv[1:] if __name__ == "__main__" else [])
demo = build_app(runs_dir=options.runs_dir)

if __name__ == "__main__":
    try:
        _app, url, _share_url = demo.launch(
            server_name=options.host,
            server_port=options.port,
            inbrowser=options.open,
            quiet=True,
            prevent_thread_lock=True,
            **launch_options(),
        )
    except OSError as error:  # the port is taken
        sys.exit(f"error: {error}")
    if url:  # `gradio app.py` runs this file again at each change, where launch does nothing
        print(f"Stepwise DPO is ready at {url}", flush=True)
        import_learning_soon(2.0)
        demo.block_thread()
