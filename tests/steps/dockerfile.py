"""Checks a Dockerfile without an engine: returns a line for each fault."""

import json
import pathlib
import re
import shlex
import shutil
import subprocess
import tempfile

KNOWN = set("ARG CMD COPY ENTRYPOINT ENV EXPOSE FROM HEALTHCHECK LABEL RUN SHELL STOPSIGNAL USER VOLUME WORKDIR".split())
SHELLS = ("CMD", "ENTRYPOINT", "HEALTHCHECK")


def instructions(text):
    """Each instruction with its arguments, continued lines joined."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [line.split(maxsplit=1) for line in joined.splitlines()]


def words(argument):
    """The words after the flags of an instruction, and the flags."""
    flags = dict(re.findall(r"--([\w-]+)=(\S+)", argument.split("[", 1)[0]))
    return flags, re.sub(r"--[\w-]+=\S+\s*", "", argument)


def faults(text):
    wrong, stages, user = [], [], None
    for name, argument in instructions(text):
        if name not in KNOWN:
            wrong.append(f"{name} is no instruction that is used here: ADD fetches and unpacks, the others are unknown")
            continue
        flags, rest = words(argument)
        if name == "FROM":
            image, *alias = re.fullmatch(r"(\S+)(?: AS (\S+))?", rest).groups()
            if ":" not in image or image.endswith(":latest"):
                wrong.append(f"FROM {image} names no version")
            stages.append(alias[0])
            user = None
        elif name == "COPY" and "from" in flags and flags["from"] not in stages[:-1]:
            wrong.append(f"COPY --from={flags['from']}: there is no such stage before")
        elif name == "RUN":
            if user is not None:
                wrong.append(f"RUN after USER {user}: {rest}")
            if "apt-get install" in rest:
                for part in ("apt-get update && ", "--yes", "--no-install-recommends", "rm -rf /var/lib/apt/lists/*"):
                    if part not in rest:
                        wrong.append(f"apt-get install without {part.strip()}: {rest}")
            if re.search(r"(^|&& ?)(cd|sudo) ", rest):
                wrong.append(f"cd or sudo: {rest}")
        elif name == "USER":
            user = rest
        elif name == "WORKDIR" and not rest.startswith("/"):
            wrong.append(f"WORKDIR {rest} depends on another one")
        elif name == "ENV" and "=" not in rest.split()[0]:
            wrong.append(f"ENV {rest}: the old form, which takes one variable only")
        if name in SHELLS:
            try:
                json.loads(rest.removeprefix("CMD ").strip())
            except ValueError:
                wrong.append(f"{name} {rest}: not a list, so a shell runs it, which passes on no signals")
    if user is None or not re.fullmatch(r"[1-9]\d*", user):
        wrong.append("the last stage runs as root, or as a user of whom Kubernetes does not see that it is not")
    return wrong


def ignored(path, patterns):
    return any(path == pattern or path.startswith(f"{pattern}/") for pattern in patterns)


def build(text, ignore):
    """Makes the context of the build and asks cargo whether the build line fits it. Returns faults."""
    wrong = []
    patterns = [line.strip().strip("/") for line in ignore.splitlines() if line.strip() and not line.startswith("#")]
    [command] = [rest for name, rest in instructions(text) if name == "RUN" and rest.startswith("cargo ")]
    arguments = shlex.split(command)
    listed = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], capture_output=True, check=True, text=True).stdout
    with tempfile.TemporaryDirectory() as folder:
        for path in filter(None, listed.split("\0")):
            if pathlib.Path(path).is_file() and not ignored(path, patterns):
                target = pathlib.Path(folder, path)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, target)
        asked = ["cargo", "metadata", "--locked", "--offline", "--no-deps", "--format-version=1", "--manifest-path", f"{folder}/Cargo.toml"]
        answer = subprocess.run(asked, capture_output=True, text=True)
        if answer.returncode:
            return [f"the context of the build is incomplete: {answer.stderr.strip()}"]
        [package] = json.loads(answer.stdout)["packages"]
        example = arguments[arguments.index("--example") + 1]
        features = set(arguments[arguments.index("--features") + 1].split(","))
        while more := {one for feature in features for one in package["features"].get(feature, []) if one in package["features"]} - features:
            features |= more
        targets = [target for target in package["targets"] if target["name"] == example and "example" in target["kind"]]
        if not targets or not pathlib.Path(targets[0]["src_path"]).exists():
            return [f"there is no example {example} in the context"]
        missing = set(targets[0].get("required-features", [])) - features
        if missing:
            wrong.append(f"{command} lacks the features {', '.join(sorted(missing))}")
        if not pathlib.Path(folder, "Cargo.lock").exists():
            wrong.append("Cargo.lock is not in the context")
    if "--locked" not in arguments:
        wrong.append(f"{command}: without --locked it is another build each time")
    profile = "release" if "--release" in arguments else "debug"
    binary = f"/src/target/{profile}/examples/{example}"
    if not any(binary in rest for name, rest in instructions(text) if name == "COPY"):
        wrong.append(f"{binary}, which the build makes, is not copied")
    return wrong
