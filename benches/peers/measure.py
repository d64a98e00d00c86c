"""Runs the senders in turns against one push service, and writes what they report: BUILT PYTHON RESULTS [--quick].

BUILT is the folder of the programs in Rust, PYTHON the interpreter that has pywebpush, RESULTS the JSON file.
"""

import contextlib
import datetime
import json
import os
import pathlib
import platform
import re
import ssl
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).parent
ROUNDS = 5
OCTETS = 200
# Of each sender in each round; a message has a subscription of its own.
MESSAGES = 10_000
# As in the senders.
IN_FLIGHT = 64
# The sender whose subscriptions and messages are in a store; it does not only prepare.
STORED = "tower-web-push (SQLite)"
# Growth with the payload and with the origins is measured in preparing. `web-push` takes at most 3052 octets.
PAYLOADS = (16, 1000, 2000, 3000)
PAYLOAD_MESSAGES = 2_000
# All of them have a message waiting, so this is the backlog, too.
SUBSCRIPTIONS = (1_000, 10_000, 100_000)
ORIGINS = (1, 10, 100, 1_000, 10_000)


class Plan:
    def __init__(self, built, python, quick):
        self.built = pathlib.Path(built)
        self.rounds = 1 if quick else ROUNDS
        self.share = 200 if quick else 1
        self.senders = {
            "tower-web-push": [self.built / "tower_web_push"],
            "tower-web-push (SQLite)": [self.built / "tower_web_push_sqlite"],
            "web-push": [self.built / "web_push"],
            "web-push-native": [self.built / "web_push_native"],
            "web-push (Node)": ["node", HERE / "send.js"],
            "pywebpush": [python, HERE / "send.py"],
        }

    def work(self, folder, messages, port, origins=1):
        command = [self.built / "work", folder, messages, port, origins]
        subprocess.run([str(word) for word in command], check=True)

    def measure(self, kind, name, folder, mode, messages, octets, **more):
        """One run of one sender."""
        command = [*self.senders[name], folder, mode, messages, octets]
        done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, check=True, timeout=600)
        report = json.loads(done.stdout)
        print(f"{name:24} {mode:8} {octets:5} octets {report['cpu_us'] / report['messages']:8.1f} us", more, flush=True)
        return {"kind": kind, "sender": name, "mode": mode, "octets": octets, **more, **report}

    def runs(self, folder, port):
        messages, payload_messages = MESSAGES // self.share, PAYLOAD_MESSAGES // self.share
        self.work(folder, messages, port)
        # In turns, so that other load on the machine affects all alike.
        for _ in range(self.rounds):
            for name in self.senders:
                for mode in ("send",) if name == STORED else ("prepare", "send"):
                    yield self.measure("peers", name, folder, mode, messages, OCTETS)
        for _ in range(self.rounds):
            for octets in PAYLOADS:
                for name in (name for name in self.senders if name != STORED):
                    yield self.measure("payload", name, folder, "prepare", payload_messages, octets)
        for stored in SUBSCRIPTIONS:
            stored //= self.share
            self.work(folder, stored, port)
            for _ in range(self.rounds):
                yield self.measure("stored", STORED, folder, "send", stored, OCTETS)
        for origins in ORIGINS:
            self.work(folder, messages, port, origins)
            for _ in range(self.rounds):
                for name in ("tower-web-push", "web-push-native"):
                    yield self.measure("origins", name, folder, "prepare", messages, OCTETS, origins=origins)


@contextlib.contextmanager
def push_service(built, folder):
    """Yields the port. The push service ends with its standard input."""
    command = [str(built / "push_service"), folder]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as service:
        try:
            yield int(service.stdout.readline())
        finally:
            service.stdin.close()


def output(*command):
    return subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout.strip()


def machine():
    cpu = re.search(r"^model name\s*: (.*)$", pathlib.Path("/proc/cpuinfo").read_text(), re.M)
    memory = re.search(r"^MemTotal:\s*(\d+)", pathlib.Path("/proc/meminfo").read_text(), re.M)
    return {
        "cpu": cpu[1] if cpu else platform.machine(),
        "cores": os.cpu_count(),
        "memory_mib": int(memory[1]) // 1024,
        "system": platform.freedesktop_os_release()["PRETTY_NAME"],
        "kernel": platform.release(),
        "load_before": round(os.getloadavg()[0], 2),
    }


def versions(python):
    lock = (HERE / "Cargo.lock").read_text()

    def crate(name):
        return re.search(rf'^name = "{name}"\nversion = "(.*)"$', lock, re.M)[1]

    npm = pathlib.Path(os.environ["NODE_PATH"], "web-push", "package.json")
    pip = "import importlib.metadata as m; print(m.version('pywebpush'))"
    return {
        "tower-web-push": crate("tower-web-push"),
        STORED: crate("tower-web-push"),
        "web-push": crate("web-push"),
        "web-push-native": crate("web-push-native"),
        "web-push (Node)": json.loads(npm.read_text())["version"],
        "pywebpush": output(python, "-c", pip),
        "rustc": output("rustc", "--version").split()[1],
        "Node": output("node", "--version").lstrip("v"),
        "Python": output(python, "-c", "import platform; print(platform.python_version())"),
        "OpenSSL": ssl.OPENSSL_VERSION.split()[1],
    }


def main(built, python, results, *flags):
    plan = Plan(built, python, "--quick" in flags)
    found = {
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "commit": output("git", "rev-parse", "--short=12", "HEAD"),
        "changed": output("git", "status", "--porcelain", "--untracked-files=no") != "",
        "machine": machine(),
        "versions": versions(python),
        "rounds": plan.rounds,
        "in_flight": IN_FLIGHT,
    }
    with tempfile.TemporaryDirectory() as folder, push_service(plan.built, folder) as port:
        os.environ["SSL_CERT_FILE"] = os.environ["NODE_EXTRA_CA_CERTS"] = f"{folder}/ca.pem"
        found["runs"] = list(plan.runs(folder, port))
    lines = ",\n    ".join(json.dumps(run) for run in found.pop("runs"))
    head = json.dumps(found, indent=2).removesuffix("\n}")
    pathlib.Path(results).write_text(f'{head},\n  "runs": [\n    {lines}\n  ]\n}}\n')


main(*sys.argv[1:])
