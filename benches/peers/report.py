"""Makes charts and a section of a README of raw results: [--check] RESULTS README.

RESULTS is a folder with `peers.json`; the charts go into it. With --check nothing is written, and it is an error if
anything would change, or if the README has a place for the section and there are no results.
"""

import json
import pathlib
import statistics
import sys
from xml.sax.saxutils import escape

BEGIN, END = "<!-- peers: written by benches/peers/run -->\n", "<!-- peers: end -->\n"
COLORS = ("#c2410c", "#1d6fb8", "#3f8f5f", "#8657b5", "#a07a12")
WIDTH = 760


class Results:
    def __init__(self, found):
        self.found = found
        self.senders = list(dict.fromkeys(run["sender"] for run in found["runs"]))

    def median(self, of, **wanted):
        """The median of a figure over all runs that have the wanted members."""
        runs = [run for run in self.found["runs"] if all(run.get(key) == value for key, value in wanted.items())]
        return statistics.median(of(run) for run in runs) if runs else None

    def cpu(self, **wanted):
        """Microseconds of CPU time for a message."""
        return self.median(lambda run: run["cpu_us"] / run["messages"], **wanted)


def svg(height, title, parts):
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
            f' role="img" aria-label="{escape(title)}">',
            "<style>text { font: 13px system-ui, sans-serif; fill: #1f2328 } .title { font-weight: 600 }"
            " .axis { stroke: #8b949e; stroke-width: 1 } .small { font-size: 11px }"
            " @media (prefers-color-scheme: dark) { text { fill: #e6edf3 } }</style>",
            f'<text class="title" x="8" y="20">{escape(title)}</text>',
            *parts,
            "</svg>\n",
        ]
    )


def text(x, y, words, anchor="start", kind=""):
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def bars(title, rows):
    """A horizontal bar for each row: name, the dark part, the whole."""
    left, right, step = 180, 90, 30
    scale = (WIDTH - left - right) / max(whole for _, _, whole in rows)
    parts = []
    for place, (name, part, whole) in enumerate(rows):
        y = 36 + place * step
        color = COLORS[0] if name.startswith(rows[0][0] + " ") or place == 0 else COLORS[1]
        parts += [
            text(left - 8, y + 15, name, "end"),
            f'<rect x="{left}" y="{y}" width="{whole * scale:.1f}" height="20" fill="{color}" opacity="0.45"/>',
            f'<rect x="{left}" y="{y}" width="{part * scale:.1f}" height="20" fill="{color}"/>',
            text(left + whole * scale + 6, y + 15, f"{whole:.0f} µs"),
        ]
    return svg(36 + len(rows) * step + 8, title, parts)


def lines(title, unit, series, logarithmic=False):
    """A line for each of the series: name to a list of x and y. All have the same x."""
    left, right, top, bottom, height = 60, 180, 40, 40, 320
    xs = [x for x, _ in next(iter(series.values()))]
    highest = max(y for points in series.values() for _, y in points)
    places = range(len(xs)) if logarithmic else [x / xs[-1] * (len(xs) - 1) for x in xs]
    x_of = [left + place / (len(xs) - 1) * (WIDTH - left - right) for place in places]

    def y_of(y):
        return height - bottom - y / highest * (height - top - bottom)

    parts = [
        f'<line class="axis" x1="{left}" y1="{y_of(0):.1f}" x2="{WIDTH - right}" y2="{y_of(0):.1f}"/>',
        *(text(x, height - bottom + 16, f"{value:,}", "middle", "small") for x, value in zip(x_of, xs)),
        text((left + WIDTH - right) / 2, height - 6, unit, "middle", "small"),
    ]
    for share in (0.0, 0.5, 1.0):
        parts.append(text(left - 8, y_of(highest * share) + 4, f"{highest * share:.0f} µs", "end", "small"))
    names = []
    for place, (name, points) in enumerate(series.items()):
        color = COLORS[place % len(COLORS)]
        path = " ".join(f"{x:.1f},{y_of(y):.1f}" for x, (_, y) in zip(x_of, points))
        parts.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2"/>')
        names.append((y_of(points[-1][1]), name, color))
    # Names beside the ends of their lines, moved apart where they would overlap.
    lowest = 0.0
    for y, name, color in sorted(names):
        lowest = max(y + 4, lowest + 15)
        parts.append(f'<rect x="{WIDTH - right + 6}" y="{lowest - 9:.1f}" width="9" height="9" fill="{color}"/>')
        parts.append(text(WIDTH - right + 20, lowest, name, "start", "small"))
    return svg(height, title, parts)


def micros(value):
    return "" if value is None else f"{value:.0f} µs"


def charts(results):
    """Name of a file to its content."""
    rows = []
    for name in results.senders:
        prepare = results.cpu(kind="peers", sender=name, mode="prepare")
        rows.append((name, prepare or 0.0, results.cpu(kind="peers", sender=name, mode="send")))
    title = "CPU time of the sender for one message; the dark part: to prepare it (less is better)"
    made = {"peers.svg": bars(title, rows)}
    for kind, member, title, unit in (
        ("payload", "octets", "CPU time to prepare one message, by payload", "octets"),
        ("stored", "messages", "CPU time to send one message durably, by subscriptions stored in SQLite", "subscriptions"),
        ("origins", "origins", "CPU time to prepare one message, by origins of push services", "origins"),
    ):
        runs = [run for run in results.found["runs"] if run["kind"] == kind]
        xs = sorted({run[member] for run in runs})
        names = [name for name in results.senders if any(run["sender"] == name for run in runs)]
        series = {
            name: [(x, results.cpu(kind=kind, sender=name, **{member: x})) for x in xs] for name in names
        }
        made[f"{kind}.svg"] = lines(title, unit, series, logarithmic=kind != "payload")
    return made


def section(results):
    found = results.found
    machine, versions = found["machine"], found["versions"]
    run = next(run for run in found["runs"] if run["kind"] == "peers")
    ours = results.cpu(kind="peers", sender=results.senders[0], mode="send")
    rows = []
    for name in results.senders:
        wanted = {"kind": "peers", "sender": name}
        prepare, send = (results.cpu(**wanted, mode=mode) for mode in ("prepare", "send"))
        rate = results.median(lambda run: run["messages"] / run["seconds"], **wanted, mode="send")
        peak = results.median(lambda run: run["peak_kib"] / 1024, **wanted, mode="send")
        library, _, language = name.partition(" ")
        rows.append(
            f"| {f'`{library}` {versions[name]} {language}'.strip()} | {micros(prepare)} | {send:.0f} µs | {send / ours:.1f} "
            f"| {rate:,.0f} | {peak:.0f} MiB |"
        )
    return "\n".join(
        [
            "### Beside other libraries",
            "",
            f"`benches/peers/run` sends {run['messages']:,} messages of {run['octets']} octets, each to a subscription of its own,",
            f"with each library: from one thread, {found['in_flight']} requests at a time, over TLS to a push service on the same",
            f"machine. Medians of {found['rounds']}. [benches/README.md](benches/README.md) says what is fair about it and what is not.",
            "",
            "| library | CPU to prepare | CPU to prepare and send | relative | messages/s | peak memory |",
            "|---|--:|--:|--:|--:|--:|",
            *rows,
            "",
            "![CPU time of each library for one message](benches/peers/results/peers.svg)",
            "",
            f"{found['date']}, commit {found['commit']}{' with changes' if found['changed'] else ''},"
            f" {machine['cores']} cores of {machine['cpu']},",
            f"{machine['system']}, Linux {machine['kernel']}, Rust {versions['rustc']}, Node {versions['Node']},"
            f" Python {versions['Python']},",
            f"OpenSSL {versions['OpenSSL']}. Growth with the [payload](benches/peers/results/payload.svg), the number of stored",
            "[subscriptions](benches/peers/results/stored.svg) and of [origins](benches/peers/results/origins.svg).",
            "",
        ]
    )


def main(*args):
    check = "--check" in args
    folder, readme = (pathlib.Path(arg) for arg in args if arg != "--check")
    raw = folder / "peers.json"
    if not raw.exists():
        if check and BEGIN in readme.read_text():
            sys.exit(f"{readme} has a place for results, and there are none in {folder}")
        print(f"there are no results in {folder}")
        return
    results = Results(json.loads(raw.read_text()))
    files = {folder / name: content for name, content in charts(results).items()}
    before, begin, rest = readme.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        sys.exit(f"{readme} has no lines {BEGIN.strip()} and {END.strip()}")
    files[readme] = f"{before}{begin}{section(results)}{end}{after}"
    for file, content in files.items():
        if not check:
            file.write_text(content)
        elif not file.exists() or file.read_text() != content:
            sys.exit(f"{file} is not what report.py makes of {raw}")


main(*sys.argv[1:])
