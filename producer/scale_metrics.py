"""`modelyard scale-metrics`: what autoscalers ask for, as JSON over HTTP.

KEDA's metrics-api scaler reads it: https://keda.sh/docs/latest/scalers/metrics-api/
"""

import json
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Annotated, Any, Final
from urllib.parse import unquote, urlsplit

import typer

from modelyard.catalog_file import default_catalog
from modelyard.errors import ModelyardError, SettingsError
from modelyard.settings import load_settings
from producer.display import err, print_json
from producer.health import NO_BROKER
from producer.scale_numbers import Numbers, as_json, read_numbers

PATH: Final = "/scale"
CLIENT_S: Final = 10.0
"""For so long a client may take to ask."""


class ScaleServer(ThreadingHTTPServer):
    """Serves what `read` returns, read anew for each request."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], read: Callable[[], Mapping[str, Numbers]]) -> None:
        super().__init__(address, _Handler)
        self._read = read

    def answer(self, target: str) -> tuple[int, Any]:
        """Return the status and the body for a path."""
        path = urlsplit(target).path.rstrip("/")
        if path != PATH and not path.startswith(f"{PATH}/"):
            return 404, {"error": f"there is {PATH} and {PATH}/MODEL"}
        try:
            every = as_json(self._read())
        except ModelyardError as error:
            return 503, {"error": str(error)}
        name = unquote(path.removeprefix(PATH).removeprefix("/"))
        if not name:
            return 200, every
        if name not in every:
            return 404, {"error": f"no model {name!r} has workers (known: {', '.join(every)})"}
        return 200, every[name]


class _Handler(BaseHTTPRequestHandler):
    timeout = CLIENT_S
    server: ScaleServer

    def do_GET(self) -> None:
        """Answer."""
        status, said = self.server.answer(self.path)
        body = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Keep quiet: it is asked every few seconds, for ever."""


def scale_metrics(
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes one that is free.")] = 9108,
    host: Annotated[
        str, typer.Option(help="Where to listen; 0.0.0.0 is everywhere.")
    ] = "127.0.0.1",
    max_wait_s: Annotated[
        float, typer.Option(min=0.1, help="Nothing should wait longer in a model's queue.")
    ] = 10.0,
    once: Annotated[bool, typer.Option("--once", help="Print the numbers and end.")] = False,
) -> None:
    """Serve what autoscalers ask for: what waits, what is called, how many processes are wanted."""
    settings = load_settings()
    catalog = default_catalog(settings)
    url = settings.broker_url
    if not url:
        raise SettingsError(NO_BROKER)

    def read() -> dict[str, Numbers]:
        return read_numbers(url, catalog, max_wait_s)

    if once:
        print_json(as_json(read()))
        return
    with ScaleServer((host, port), read) as server:
        err.print(
            f"http://{host}:{server.server_address[1]}{PATH}", highlight=False, soft_wrap=True
        )
        serving = threading.Thread(target=server.serve_forever, daemon=True)
        serving.start()
        try:
            serving.join()
        except KeyboardInterrupt:
            server.shutdown()
