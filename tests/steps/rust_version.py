"""The highest `rust-version` among what the crate links or builds with: `cargo metadata` in, `1.89` out."""

import json
import sys

metadata = json.load(sys.stdin)
packages = {package["id"]: package for package in metadata["packages"]}
nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}

root = metadata["resolve"]["root"]
found, todo = set(), [root]
while todo:
    for dependency in nodes[todo.pop()]["deps"]:
        # What only the tests use decides nothing.
        linked = any(kind["kind"] != "dev" for kind in dependency["dep_kinds"])
        if linked and dependency["pkg"] not in found:
            found.add(dependency["pkg"])
            todo.append(dependency["pkg"])

versions = (packages[each]["rust_version"] for each in found)
newest = max(tuple(map(int, version.split("."))) for version in versions if version)
print(".".join(map(str, newest[:2])))
