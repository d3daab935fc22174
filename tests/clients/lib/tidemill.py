"""The real server as a child process, for client tests: `with Server(binary) as server: ... server.port`."""
import atexit
import os
import signal
import socket
import subprocess
import tempfile
import time


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Server:
    def __init__(self, binary):
        self.binary = binary
        self.port, self.http = free_port(), free_port()
        self.folder = tempfile.TemporaryDirectory(prefix="tidemill-clients-")
        self.dsn = f"host=127.0.0.1 port={self.port} user=tidemill dbname=tidemill"
        self.url = f"postgresql://tidemill@127.0.0.1:{self.port}/tidemill"

    def __enter__(self):
        self.log = open(os.path.join(self.folder.name, "log"), "wb")
        self.child = subprocess.Popen(
            [self.binary, "server", "--data-dir", os.path.join(self.folder.name, "data"),
             "--pg-listen", f"127.0.0.1:{self.port}", "--http-listen", f"127.0.0.1:{self.http}"],
            stdout=self.log, stderr=self.log)
        atexit.register(self.child.kill)
        end = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return self
            except OSError:
                if time.monotonic() > end or self.child.poll() is not None:
                    raise SystemExit("the server does not answer:\n" + self.read_log())
                time.sleep(0.02)

    def read_log(self):
        with open(os.path.join(self.folder.name, "log")) as f:
            return f.read()[-4000:]

    def __exit__(self, kind, error, trace):
        alive = self.child.poll() is None
        self.child.send_signal(signal.SIGTERM)
        try:
            code = self.child.wait(30)
        except subprocess.TimeoutExpired:
            self.child.kill()
            code = "killed"
        if kind is not None or not alive or code != 0:
            print("--- end of the server's log ---\n" + self.read_log())
        if kind is None and (not alive or code != 0):
            raise SystemExit(f"the server ended with {code}")
        self.folder.cleanup()
