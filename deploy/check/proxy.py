"""Runs nginx with deploy/nginx/syncdiffusion.conf in front of a small upstream or (--server) the built server, or (--fleet) with
deploy/nginx/fleet.conf in front of several.

Events must pass one by one: the upstream sends the second only when the client has the first, so a proxy that buffers them
never gets further. The time limits only end a run that hangs.
"""

import contextlib
import http.client
import http.server
import json
import os
import pathlib
import re
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import threading

ROOT = pathlib.Path(__file__).resolve().parents[2]
NAME = "panorama.example.com"
LIMIT = 60


class Upstream(http.server.BaseHTTPRequestHandler):
    """Sends one event, and another once `first_seen` is set; sets `left` when its client disconnects."""

    protocol_version = "HTTP/1.1"
    first_seen = threading.Event()
    left = threading.Event()

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.do_GET()

    do_PUT = do_POST

    def do_GET(self):
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        self.chunk(f"data: {self.path} {self.headers['x-forwarded-proto']}\n\n")
        if self.path == "/endless":
            self.connection.settimeout(LIMIT)
            if self.connection.recv(1) == b"":
                self.left.set()
            self.close_connection = True
        elif self.first_seen.wait(LIMIT):
            self.chunk("data: second\n\n")
            self.chunk("")

    def chunk(self, text):
        self.wfile.write(f"{len(text):x}\r\n{text}\r\n".encode())

    def log_message(self, *_):
        pass


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def stop(process):
    process.terminate()
    process.wait(LIMIT)


@contextlib.contextmanager
def nginx(folder, upstream):
    """A running nginx; yields its HTTP and HTTPS ports and its certificate."""
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    command += ["-subj", f"/CN={NAME}", "-addext", f"subjectAltName=DNS:{NAME}", "-keyout", key, "-out", certificate]
    subprocess.run(command, check=True, capture_output=True)
    plain, secure = free_port(), free_port()
    text = (ROOT / "deploy/nginx/syncdiffusion.conf").read_text()
    for old, new in [
        ("server 127.0.0.1:5000;", f"server 127.0.0.1:{upstream};"),
        ("listen 80;", f"listen 127.0.0.1:{plain};"),
        ("listen 443 ssl;", f"listen 127.0.0.1:{secure} ssl;"),
        (f"/etc/nginx/tls/{NAME}.pem", str(certificate)),
        (f"/etc/nginx/tls/{NAME}.key", str(key)),
    ]:
        text = replaced(text, old, new)
    with running(folder, text, (plain, secure)):
        yield plain, secure, certificate


def replaced(text, old, new):
    assert text.count(old) == 1, f"`{old}` is not in the example once"
    return text.replace(old, new)


@contextlib.contextmanager
def running(folder, text, ports):
    """A running nginx with this configuration, which listens on these ports."""
    temporary = "\n".join(f"{kind}_temp_path {folder}/{kind};" for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"])
    main = folder / "nginx.conf"
    main.write_text(f"daemon off; pid {folder}/pid; error_log stderr; events {{}} http {{ access_log off; {temporary}\n{text}\n}}")
    command = ["nginx", "-e", "stderr", "-p", folder, "-c", main]
    subprocess.run([*command, "-t"], check=True)
    process = subprocess.Popen(command)
    try:
        for port in ports:
            reachable(port, process)
        yield
    finally:
        stop(process)


def reachable(port, process):
    """Waits until the process listens on the port."""
    while process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
    sys.exit("the process ended before it listened")


def secured(port, certificate):
    """A TLS connection that trusts the certificate and checks the name."""
    context = ssl.create_default_context(cafile=certificate)
    connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=LIMIT)
    raw = socket.create_connection(("127.0.0.1", port), LIMIT)
    connection.sock = context.wrap_socket(raw, server_hostname=NAME)
    return connection


def ask(connection, method, path, body=None, **headers):
    connection.request(method, path, body, {"host": NAME, **headers})
    return connection.getresponse()


def event(response):
    """The lines of the next event."""
    lines = []
    while (line := response.readline()) not in (b"\n", b""):
        lines.append(line.decode().strip())
    return lines


def with_upstream(folder):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with nginx(folder, server.server_port) as (plain, secure, certificate):
        response = ask(http.client.HTTPConnection("127.0.0.1", plain), "GET", "/predictions")
        assert (response.status, response.headers["location"]) == (301, f"https://{NAME}/predictions"), response.status
        for path in ("/shutdown", "/metrics"):
            assert ask(secured(secure, certificate), "GET", path).status == 403, path

        # A body larger than the default limit and the buffers of nginx.
        response = ask(secured(secure, certificate), "POST", "/predictions", b"x" * (8 << 20))
        assert event(response) == ["data: /predictions https"]
        Upstream.first_seen.set()
        assert event(response) == ["data: second"]

        connection = secured(secure, certificate)
        assert event(ask(connection, "GET", "/endless")) == ["data: /endless https"]
        connection.sock.shutdown(socket.SHUT_RDWR)
        connection.close()
        assert Upstream.left.wait(LIMIT), "the upstream did not notice that the client disconnected"
    server.shutdown()


class Stopping(Upstream):
    """A server that stops: it refuses what is new."""

    asked = 0

    def do_GET(self):
        type(self).asked += 1
        self.send_response(503)
        self.send_header("content-length", "0")
        self.end_headers()


class Dying(Upstream):
    """A server that dies while it has a request."""

    asked = 0

    def do_GET(self):
        type(self).asked += 1
        self.close_connection = True


def with_fleet(folder):
    """One server is well; others are gone, stop or die. What may be repeated is, and nothing else."""
    kinds = {kind: http.server.ThreadingHTTPServer(("127.0.0.1", 0), kind) for kind in (Upstream, Stopping, Dying)}
    for server in kinds.values():
        threading.Thread(target=server.serve_forever, daemon=True).start()
    text = (ROOT / "deploy/nginx/fleet.conf").read_text()

    def before(servers, port):
        """The example in front of these servers."""
        mine = replaced(replaced(text, "server api:5000 resolve max_fails=1 fail_timeout=5s;", servers), "resolver 127.0.0.11 valid=5s;", "")
        return replaced(mine, "listen 80;", f"listen 127.0.0.1:{port};")

    # As it is, with a name that is looked up later.
    port = free_port()
    with running(folder, replaced(text, "listen 80;", f"listen 127.0.0.1:{port};"), [port]):
        pass
    Upstream.first_seen.set()
    for others in ([], [free_port()], [kinds[Stopping].server_port], [kinds[Dying].server_port]):
        port = free_port()
        # A server that failed is asked again at once here, so that every request may meet it.
        servers = "".join(f"server 127.0.0.1:{at} max_fails=0;" for at in (*others, kinds[Upstream].server_port))
        with running(folder, before(servers, port), [port]):
            for method, body in (("GET", None), ("PUT", b"x" * (8 << 20))) * 4:
                response = ask(http.client.HTTPConnection("127.0.0.1", port), method, "/predictions/a", body)
                assert (response.status, event(response)) == (200, ["data: /predictions/a http"]), (method, others, response.status)
                assert event(response) == ["data: second"]
            for path in ("/shutdown", "/metrics"):
                assert ask(http.client.HTTPConnection("127.0.0.1", port), "GET", path).status == 403, path
    assert Stopping.asked and Dying.asked, "no request met the servers that fail"

    # A POST that was sent is not repeated.
    Dying.asked, port = 0, free_port()
    with running(folder, before(2 * f"server 127.0.0.1:{kinds[Dying].server_port};", port), [port]):
        status = ask(http.client.HTTPConnection("127.0.0.1", port), "POST", "/predictions", b"{}").status
    assert (status, Dying.asked) == (502, 1), (status, Dying.asked)

    port = free_port()
    with running(folder, before(f"server 127.0.0.1:{kinds[Upstream].server_port};", port), [port]):
        Upstream.first_seen.clear()
        response = ask(http.client.HTTPConnection("127.0.0.1", port), "POST", "/predictions", b"{}")
        assert event(response) == ["data: /predictions http"]
        Upstream.first_seen.set()
        assert event(response) == ["data: second"]
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT)
        assert event(ask(connection, "GET", "/endless")) == ["data: /endless http"]
        connection.sock.shutdown(socket.SHUT_RDWR)
        connection.close()
        assert Upstream.left.wait(LIMIT), "the upstream did not notice that the client disconnected"
    for server in kinds.values():
        server.shutdown()


def with_server(folder):
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    built = [target / kind for kind in ("release", "debug") if (target / kind / "syncdiffusion").exists() and (target / kind / "stand-in-worker").exists()]
    if not built:
        print("the server and the stand-in worker are not built; run `cargo build -p server -p tests`")
        sys.exit(77)
    port = free_port()
    command = [built[0] / "syncdiffusion", "serve", "--host", "127.0.0.1", "--port", str(port), "--data-dir", folder / "data", "--public-url", f"https://{NAME}"]
    process = subprocess.Popen([*command, "--worker", built[0] / "stand-in-worker"], stdout=subprocess.DEVNULL)
    try:
        reachable(port, process)
        with nginx(folder, port) as (_, secure, certificate):
            while ask(secured(secure, certificate), "GET", "/ready").status != 200:
                assert process.poll() is None, "the server ended"
            body = json.dumps({"input": {"prompt": "a harbour"}})
            headers = {"content-type": "application/json", "accept": "text/event-stream"}
            response = ask(secured(secure, certificate), "PUT", "/predictions/behind-nginx", body, **headers)
            assert response.status == 200 and response.headers["content-type"].startswith("text/event-stream"), response.status
            seen = []
            while lines := event(response):
                seen += [line.removeprefix("event: ") for line in lines if line.startswith("event: ")]
            assert seen[0] == "start" and seen[-1] == "completed" and "progress" in seen, seen
            prediction = json.load(ask(secured(secure, certificate), "GET", "/predictions/behind-nginx"))
            assert prediction["status"] == "succeeded", prediction
            assert prediction["urls"]["get"] == f"https://{NAME}/predictions/behind-nginx", prediction["urls"]
    finally:
        stop(process)


def main():
    version = shutil.which("nginx") and subprocess.run(["nginx", "-v"], capture_output=True, text=True).stderr
    needed = (1, 27, 3) if "--fleet" in sys.argv else (1, 25, 1)
    if not version or tuple(map(int, re.search(r"/(\d+)\.(\d+)\.(\d+)", version).groups())) < needed:
        print(f"nginx {'.'.join(map(str, needed))} or newer is not installed")
        sys.exit(77)
    with tempfile.TemporaryDirectory() as folder:
        # A master process that runs as root has workers that do not.
        os.chmod(folder, 0o711)
        run = with_server if "--server" in sys.argv else with_fleet if "--fleet" in sys.argv else with_upstream
        run(pathlib.Path(folder))


if __name__ == "__main__":
    main()
