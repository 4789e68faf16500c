"""A small HTTP server of files on loopback, with ranges, that a test can make fail."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Files:
    """What the server has.

    Attributes:
        url: where it is.
        content: the files by their names.
        asked: the ranges that were asked for, in order; "" for a complete file.
        drop: the next so many answers end in the middle.
        ranges: whether a part of a file can be asked for.

    """

    def __init__(self, url: str):
        self.url = url
        self.content: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.drop = 0
        self.ranges = True


@contextmanager
def serving() -> Iterator[Files]:
    """Serve files until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.answer(False)

        def do_GET(self) -> None:
            self.answer(True)

        def answer(self, body: bool) -> None:
            raw = files.content.get(self.path.lstrip("/"))
            if raw is None:
                self.send_response(404)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")) if files.ranges else None
            part = raw[int(asked[1]) : int(asked[2] or len(raw)) + 1] if asked else raw
            self.send_response(206 if asked else 200)
            self.send_header("Accept-Ranges", "bytes" if files.ranges else "none")
            self.send_header("ETag", sha256(raw).hexdigest())
            self.send_header("Content-Length", str(len(part)))
            if asked:
                self.send_header("Content-Range", f"bytes {asked[1]}-{int(asked[1]) + len(part) - 1}/{len(raw)}")
            self.end_headers()
            if body:
                files.asked.append(asked[0] if asked else "")
                if files.drop:
                    files.drop -= 1
                    part = part[: len(part) // 2]
                    self.close_connection = True
                self.wfile.write(part)

        def log_message(self, *_) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    files = Files(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield files
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
