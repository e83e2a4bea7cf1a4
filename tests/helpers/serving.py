"""A loopback server of a test, served from a thread inside a `with` block."""

import threading
from http.server import ThreadingHTTPServer
from typing import Self


class Serving(ThreadingHTTPServer):
    daemon_threads = True

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()
