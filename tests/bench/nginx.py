"""An nginx that does what frontd and registryd do together: TLS with client certificates in front, and behind it, over
a Unix socket with keep-alive, a server whose answers have the size of caf's. Debian's nginx, with nothing of the
host's configuration, as a plain user."""

import socket
import subprocess
import time

from caf_dev import processes

PROGRAM = "/usr/sbin/nginx"
START_SECONDS = 10
MANY = 1000000000

COMMON = """
worker_processes 1;
daemon off;
pid {folder}/{name}.pid;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    default_type application/json;
    keepalive_requests {many};
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
{http}
}}
"""

FRONT = """
    upstream back {{ server unix:{folder}/back.sock; keepalive 128; keepalive_requests {many}; }}
    server {{
        listen 127.0.0.1:{port} ssl;
        ssl_protocols TLSv1.3;
        ssl_certificate {certificate};
        ssl_certificate_key {key};
        ssl_client_certificate {ca};
        ssl_verify_client on;
        ssl_verify_depth 2;
        ssl_session_tickets on;
        location = /livez {{ return 200 '{livez}'; }}
        location / {{ proxy_pass http://back; proxy_http_version 1.1; proxy_set_header Connection ""; }}
    }}
"""

BACK = """
    server {{
        listen unix:{folder}/back.sock;
        {locations}
    }}
"""


class Nginx:
    """Both servers. answers: path to the body that it is answered with; identity: what subprocess needs to run them as
    the user who owns the folder and may read the key."""

    def __init__(self, folder, identity, certificate, key, ca, answers):
        self.folder, self.identity, self.port = folder, identity, free_port()
        bodies = {path: quoted(body) for path, body in answers.items()}
        locations = "\n        ".join(f"location = {path} {{ return 200 '{body}'; }}" for path, body in bodies.items())
        self.write("back", BACK.format(folder=folder, locations=locations))
        self.write("front", FRONT.format(folder=folder, port=self.port, certificate=certificate, key=key, ca=ca,
                                         livez=bodies["/livez"], many=MANY))
        self.running = []

    def write(self, name, http):
        text = COMMON.format(folder=self.folder, name=name, http=http, many=MANY)
        (self.folder / f"{name}.conf").write_text(text)

    def __enter__(self):
        try:
            self.start("back", lambda: connects(socket.AF_UNIX, str(self.folder / "back.sock")))
            self.start("front", lambda: connects(socket.AF_INET, ("127.0.0.1", self.port)))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for process in reversed(self.running):
            process.terminate()
            process.wait()

    def pids(self):
        """Both masters and their workers."""
        masters = [process.pid for process in self.running]
        return [*masters, *(child for master in masters for child in processes.children(master))]

    def start(self, name, is_up):
        log = self.folder / f"{name}.log"
        argv = [PROGRAM, "-p", self.folder, "-e", log, "-c", self.folder / f"{name}.conf"]
        process = subprocess.Popen(argv, cwd="/", stderr=subprocess.DEVNULL, **self.identity)
        self.running.append(process)
        until = time.monotonic() + START_SECONDS
        while not is_up():
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"nginx did not start: {log.read_text()}")
            time.sleep(0.02)


def quoted(body):
    """A body as nginx' configuration takes it between single quotes, where $ cannot be said."""
    if "$" in body:
        raise RuntimeError(f"nginx cannot be told to answer {body}")
    return body.replace("\\", "\\\\").replace("'", "\\'")


def connects(family, address):
    with socket.socket(family) as probe:
        return probe.connect_ex(address) == 0


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
