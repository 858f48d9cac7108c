"""The page on localhost, and on nothing else."""

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from bench.errors import BenchError

HOST = "127.0.0.1"


def make_server(page: str, port: int) -> ThreadingHTTPServer:
    """A server of the one page, bound to the loopback address; port 0 takes a free one.

    Raises:
        BenchError: the port is taken.
    """
    body = page.encode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            # A name that merely resolves to this machine could be another site's.
            host = self.headers.get("Host", "").rsplit(":", 1)[0]
            if host not in (HOST, "localhost"):
                self.send_error(403)
            elif self.path != "/":
                self.send_error(404)
            else:
                self.send_response(200)
                self.send_header("Content-Type", "text/html; charset=utf-8")
                self.send_header("Content-Length", str(len(body)))
                self.send_header("Cache-Control", "no-store")
                self.send_header("X-Content-Type-Options", "nosniff")
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            return

    try:
        return ThreadingHTTPServer((HOST, port), Handler)
    except OSError as error:
        raise BenchError(f"--port: cannot listen on {HOST}:{port} ({error.strerror}); choose another.") from error
