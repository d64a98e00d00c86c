"""Compares the files of deploy/ with the settings and routes that there are. Fails with a line for each difference."""

import json
import pathlib
import re
import sys

sys.dont_write_bytecode = True
import deploy_members
import dockerfile
import yaml

DEPLOY = pathlib.Path("deploy")
wrong = []


def expect(condition, what):
    if not condition:
        wrong.append(what)


flags = pathlib.Path("examples/support/flags.rs").read_text()
settings = {name.upper() for name in re.findall(r"pub\(crate\) (\w+):", flags)}
expect(len(settings) > 20, "the settings of examples/support/flags.rs were not found")
routes = {path.removeprefix("/web-push") for path in json.loads(pathlib.Path("src/api/openapi.json").read_text())["paths"]}


def check(file, environment):
    """Names of settings, and values that a setting must not have."""
    for name, value in environment.items():
        expect(name in settings, f"{file}: there is no setting {name}")
        expect(value not in (None, ""), f"{file}: {name} is empty, which is refused")
        if name.endswith("_FILE"):
            expect(name.removesuffix("_FILE") not in environment, f"{file}: {name} and what it replaces")
    for name in ("VAPID_SUBJECT", "ADMIN_TOKEN_FILE", "KEY_ENCRYPTION_KEY_FILE", "TRUSTED_PROXIES"):
        expect(name in environment, f"{file}: {name} is missing")


def check_route(file, url):
    path = re.sub(r"^http://[^/]+", "", url).removeprefix("/web-push")
    expect(path in routes, f"{file}: there is no route {path}")


file = DEPLOY / "systemd/web-push.service"
unit = file.read_text()
check(file, dict(line.split("=", 1) for line in re.findall(r"^Environment=(.*)$", unit, re.M)))
credentials = set(re.findall(r"^LoadCredential=([^:]+):", unit, re.M))
expect(credentials == set(re.findall(r"=%d/(\S+)", unit)), f"{file}: credentials are {credentials}")

expect("\nType=notify\n" in unit, f"{file}: it does not wait until the server is ready")
default = re.search(r'default_value = "(\d+)"\)\]\s+pub\(crate\) wait_for_store', flags)[1]
patience = int(re.search(r"TimeoutStartSec=(\d+)", unit)[1])
waits = int(dict(line.split("=", 1) for line in re.findall(r"^Environment=(.*)$", unit, re.M)).get("WAIT_FOR_STORE", default))
expect(patience > waits, f"{file}: a start may wait for {waits} s for its database")
socket = (DEPLOY / "systemd/web-push.socket").read_text()
listens = re.search(r"^ListenStream=(.*)$", socket, re.M)[1]
expect(f"Environment=BIND={listens}\n" in unit, f"{file}: web-push.socket listens on {listens}")

# A socket that a text names has to be one that the service, whose user comes and goes, can have.
sockets = set(re.findall(r"^#? ?ListenStream=(/\S+)", socket, re.M))
sockets |= {f"/run/{folder}/http.sock" for folder in re.findall(r"^RuntimeDirectory=(\S+)$", unit, re.M)}
for text in (DEPLOY / "proxies/nginx.conf", pathlib.Path("src/guide/in_production.md")):
    for named in re.findall(r"unix:(/[\w./-]+)", text.read_text()):
        expect(named in sockets, f"{text}: neither web-push.socket nor web-push.service makes {named}")

file = DEPLOY / "docker/Dockerfile"
image = file.read_text()
for fault in dockerfile.faults(image) + dockerfile.build(image, (DEPLOY / "docker/Dockerfile.dockerignore").read_text()):
    expect(False, f"{file}: {fault}")
for name in re.findall(r"(\w+)=", "".join(re.findall(r"^ENV (.*)$", image, re.M))):
    expect(name in settings, f"{file}: there is no setting {name}")
for url in re.findall(r"http://[^\"\s]+", image):
    check_route(file, url)
program = re.search(r"--example (\w+)", image)[1]
expect(pathlib.Path(f"examples/{program}.rs").exists(), f"{file}: there is no example {program}")
expect(f"examples/{program} " in image and f'ENTRYPOINT ["{program}"]' in image, f"{file}: {program} is not what it runs")
expect(re.search(r"^USER [1-9]\d*$", image, re.M), f"{file}: it runs as root")
grace = int(re.search(r"GRACE: Duration = Duration::from_secs\((\d+)\)", pathlib.Path("examples/support/shutdown.rs").read_text())[1])

file = DEPLOY / "docker/compose.yaml"
compose = yaml.safe_load(file.read_text())
for path in deploy_members.unknown(compose, deploy_members.COMPOSE):
    expect(False, f"{file}: Compose knows no {path}")
server = compose["services"]["web-push"]
check(file, server["environment"])
for service in compose["services"].values():
    for name in service.get("secrets", []):
        expect(name in compose["secrets"], f"{file}: there is no secret {name}")
for name, service in compose["services"].items():
    expect(service.get("restart") in ("always", "unless-stopped"), f"{file}: {name} stays down after a reboot")
for listed, root in ((".gitignore", "/"), ("deploy/docker/Dockerfile.dockerignore", "")):
    ignored = pathlib.Path(listed).read_text().splitlines()
    for secret in compose["secrets"].values():
        path = f"{root}deploy/docker/{secret['file']}"
        expect(path in ignored, f"{listed}: the secret {path} is not in it")
for name, value in server["environment"].items():
    if name.endswith("_FILE"):
        expect(pathlib.PurePath(value).name in server["secrets"], f"{file}: {name} is not mounted")
expect(int(server["stop_grace_period"].removesuffix("s")) > grace, f"{file}: the drain takes up to {grace} s")
dockerfile = DEPLOY / "docker" / server["build"]["context"] / server["build"]["dockerfile"]
expect(dockerfile.exists(), f"{file}: there is no {dockerfile}")

file = DEPLOY / "proxies/Caddyfile"
caddy = file.read_text()
body = int(re.search(r"(\d+) \* 1024", pathlib.Path("src/api/read_body.rs").read_text())[1])
limit = re.search(r"^\s*max_size (\S+)$", caddy, re.M)[1]
expect(limit == f"{body}KiB", f"{file}: the server accepts {body} KiB, and it {limit}")
if server["deploy"]["replicas"] > 1:
    # One name with the addresses of all: as one upstream they would be up or down together.
    port = re.search(r"^EXPOSE (\d+)$", image, re.M)[1]
    expect(re.search(rf"^\s*dynamic a web-push {port} {{$", caddy, re.M), f"{file}: the replicas are one upstream")
    expect("lb_try_duration" in caddy, f"{file}: a request to a replica that has gone is not tried again")

file = DEPLOY / "kubernetes/web-push.yaml"
documents = {document["kind"]: document for document in yaml.safe_load_all(file.read_text())}
for document in documents.values():
    members = deploy_members.kubernetes(document)
    expect(members, f"{file}: an unknown kind or version, {document['kind']}")
    for path in deploy_members.unknown(document, members):
        expect(False, f"{file}: {document['kind']} has no {path}")
pod = documents["Deployment"]["spec"]["template"]
container = pod["spec"]["containers"][0]
check(file, {one["name"]: one["value"] for one in container["env"]})
for probe in ("livenessProbe", "readinessProbe"):
    check_route(file, container[probe]["httpGet"]["path"])
stop = container.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", ["", "0"])
expect(stop[0] == "sleep" and int(stop[1]) >= 5, f"{file}: requests still arrive while it stops to listen")
expect(pod["spec"]["terminationGracePeriodSeconds"] > grace + int(stop[1]), f"{file}: the drain takes up to {grace} s")
expect(int(re.search(r"^TimeoutStopSec=(\d+)$", unit, re.M)[1]) > grace, f"systemd: the drain takes up to {grace} s")
for document in ("Service", "PodDisruptionBudget"):
    selector = documents[document]["spec"]["selector"]
    expect(selector.get("matchLabels", selector) == pod["metadata"]["labels"], f"{file}: {document} selects other pods")
mount = container["volumeMounts"][0]["mountPath"]
for one in container["env"]:
    if one["name"].endswith("_FILE"):
        expect(one["value"].startswith(mount), f"{file}: {one['name']} is not mounted")

# What the tests of the alerts read by a parser of their own is YAML as well, and the same.
file = DEPLOY / "prometheus/alerts.yml"
rules = yaml.safe_load(file.read_text())["groups"][0]["rules"]
expect([rule["alert"] for rule in rules] == re.findall(r"(?m)^ +- alert: (\w+)", file.read_text()), f"{file}: other rules")
for rule in rules:
    written = f"        expr: {rule['expr']}\n"
    expect(written in file.read_text(), f"{file}: the expression of {rule['alert']} is another one in YAML")
    expect(re.fullmatch(r"\d+m", rule.get("for", "1m")), f"{file}: {rule['alert']} waits for {rule.get('for')}")
    expect(set(rule) <= {"alert", "expr", "for", "labels", "annotations"}, f"{file}: {rule['alert']} has other members")

for line in wrong:
    print(line)
print(f"{len(settings)} settings, {len(routes)} routes, {len(wrong)} errors")
sys.exit(bool(wrong))
