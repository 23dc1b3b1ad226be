"""`modelyard scale-metrics`: what autoscalers ask for, as JSON over HTTP, and all for Prometheus.

KEDA's metrics-api scaler reads the JSON: https://keda.sh/docs/latest/scalers/metrics-api/
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
from producer.scale_prometheus import CONTENT_TYPE, State, exposition, read_state

PATH: Final = "/scale"
METRICS: Final = "/metrics"
JSON: Final = "application/json"
CLIENT_S: Final = 10.0
"""For so long a client may take to ask."""


class ScaleServer(ThreadingHTTPServer):
    """Serves what `read` returns, read anew for each request, and what wants a person."""

    daemon_threads = True

    def __init__(
        self,
        address: tuple[str, int],
        read: Callable[[], Mapping[str, Numbers]],
        read_state: Callable[[], State],
    ) -> None:
        super().__init__(address, _Handler)
        self._read = read
        self._read_state = read_state

    def answer(self, target: str) -> tuple[int, str, str]:
        """Return the status, the type and the body for a path."""
        path = urlsplit(target).path.rstrip("/")
        if path != METRICS:
            status, said = self.scale(path)
            return status, JSON, json.dumps(said)
        try:
            return 200, CONTENT_TYPE, exposition(self._read(), self._read_state())
        except ModelyardError as error:
            return 503, JSON, json.dumps({"error": str(error)})

    def scale(self, path: str) -> tuple[int, Any]:
        """Return the status and the JSON values for a path."""
        if path != PATH and not path.startswith(f"{PATH}/"):
            return 404, {"error": f"there is {PATH}, {PATH}/MODEL and {METRICS}"}
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
        status, kind, said = self.server.answer(self.path)
        body = said.encode("utf-8", "replace")
        self.send_response(status)
        self.send_header("Content-Type", kind)
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
    """Serve what autoscalers ask for: what waits, what is called, how many processes are wanted.

    And for Prometheus, at /metrics, all of that, endpoints that are left alone, dead letters and
    budgets.
    """
    settings = load_settings()
    catalog = default_catalog(settings)
    url = settings.broker_url
    if not url:
        raise SettingsError(NO_BROKER)

    def read() -> dict[str, Numbers]:
        return read_numbers(url, catalog, max_wait_s, settings.batch_share)

    def state() -> State:
        return read_state(url, catalog, settings.dead_letter_limit)

    if once:
        print_json(as_json(read()))
        return
    with ScaleServer((host, port), read, state) as server:
        err.print(
            f"http://{host}:{server.server_address[1]}{PATH}", highlight=False, soft_wrap=True
        )
        serving = threading.Thread(target=server.serve_forever, daemon=True)
        serving.start()
        try:
            serving.join()
        except KeyboardInterrupt:
            server.shutdown()
