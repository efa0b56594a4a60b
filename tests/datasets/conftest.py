"""A local server that sends published files, an own cache for each test, and the real data."""

import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def shared_data() -> Path:
    """The folder of the real data: $PROGIP_DATA, else ../shared/data beside the repository."""
    given = os.environ.get("PROGIP_DATA")
    folder = Path(given) if given else ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real data: {folder} is not there (set PROGIP_DATA)")
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An own empty cache for each test, so that none reads or writes the user's."""
    monkeypatch.setenv("PROGIP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "datasets"


@dataclass
class Server:
    """A web server on this machine; ``folder`` is what it sends, ``requests`` what was asked."""

    folder: Path
    url: str
    requests: list[str]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    folder = tmp_path / "served"
    folder.mkdir()
    requests: list[str] = []

    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            requests.append(self.path)
            super().do_GET()

        def log_message(self, *_: object) -> None:
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
    threading.Thread(target=httpd.serve_forever, args=(0.02,), daemon=True).start()
    yield Server(folder, f"http://127.0.0.1:{httpd.server_port}", requests)
    httpd.shutdown()
    httpd.server_close()
