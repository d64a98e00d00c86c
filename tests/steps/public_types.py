"""Compares the foreign items that the public API names with a list: rustdoc's JSON as argument, the list as input.

A line of the list is a crate, or a path of which everything may appear. What appears must be on the list, and the
other way around.
"""

import json
import sys

STANDARD = {"alloc", "core", "std"}

with open(sys.argv[1]) as file:
    docs = json.load(file)
allowed = {line.strip() for line in sys.stdin if line.strip() and not line.startswith("#")}


def ids(value):
    """Of every item that a type, a bound or an import names."""
    if isinstance(value, dict):
        # A path has the id of what it names; the list of all impls of an item is no part of its signature.
        if "path" in value and isinstance(value.get("id"), int):
            yield value["id"]
        if "use" in value and isinstance(value["use"].get("id"), int):
            yield value["use"]["id"]
        for key, part in value.items():
            if key not in ("attrs", "deprecation", "docs", "impls", "implementations", "links", "span"):
                yield from ids(part)
    elif isinstance(value, list):
        for part in value:
            yield from ids(part)


def is_written(item):
    """Not what the compiler implements by itself, nor what an impl for all types brings."""
    implementation = item["inner"].get("impl")
    return implementation is None or not (implementation["is_synthetic"] or implementation["blanket_impl"])


found = {}
for item in docs["index"].values():
    if item["crate_id"] != 0 or not is_written(item):
        continue
    for each in ids(item["inner"]):
        path = docs["paths"].get(str(each), {}).get("path")
        if path and docs["paths"][str(each)]["crate_id"] != 0 and path[0] not in STANDARD:
            place = f"{item['span']['filename']}:{item['span']['begin'][0]}" if item["span"] else "?"
            found.setdefault("::".join(path), place)


def is_within(path, allowed):
    return path == allowed or path.startswith(allowed + "::")


unexpected = {path: place for path, place in found.items() if not any(is_within(path, each) for each in allowed)}
unused = [each for each in allowed if not any(is_within(path, each) for path in found)]
for path, place in sorted(unexpected.items()):
    print(f"error: {path} is in the public API ({place}) and not on the list")
for each in sorted(unused):
    print(f"error: {each} is on the list and not in the public API")
if unexpected or unused:
    sys.exit(1)
print(f"the public API names {len(found)} items of other crates, all of them allowed")
