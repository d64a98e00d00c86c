"""Sends with PyPI's pywebpush: FOLDER prepare|send MESSAGES OCTETS, as the senders in Rust.

SSL_CERT_FILE says where the certificate of the push service is.
"""

import asyncio
import json
import pathlib
import re
import sys
import time
from urllib.parse import urlsplit

import aiohttp
import py_vapid
import pywebpush

IN_FLIGHT = 64


def prepare(info, payload, key, contact):
    """What `webpush_async` does before it sends; it has no call for this alone."""
    url = urlsplit(info["endpoint"])
    claims = {"sub": contact, "aud": f"{url.scheme}://{url.netloc}", "exp": int(time.time()) + 12 * 3600}
    headers = key.sign(claims)
    body = pywebpush.WebPusher(info).encode(payload)["body"]
    if len(body) <= len(payload) or "Authorization" not in headers:
        raise RuntimeError("the payload is not in the body, or no token in the headers")


async def prepare_all(subscriptions, *rest):
    for info in subscriptions:
        prepare(info, *rest)


async def send_all(subscriptions, payload, key, contact, session):
    waiting = iter(subscriptions)

    async def worker():
        for info in waiting:
            await pywebpush.webpush_async(
                info,
                data=payload,
                vapid_private_key=key,
                vapid_claims={"sub": contact},
                ttl=86400,
                aiohttp_session=session,
            )

    await asyncio.gather(*(worker() for _ in range(IN_FLIGHT)))


async def main(folder, mode, messages, octets):
    messages, payload = int(messages), b"x" * int(octets)
    work = json.loads(pathlib.Path(folder, "work.json").read_bytes())
    subscriptions = [
        {"endpoint": one["endpoint"], "keys": {"p256dh": one["p256dh"], "auth": one["auth"]}}
        for one in work.pop("subscriptions")[:messages]
    ]
    if len(subscriptions) < messages:
        raise RuntimeError("fewer subscriptions than messages")
    key = py_vapid.Vapid.from_string(work["private_key"])
    async with aiohttp.ClientSession() as session:
        every, rest = (send_all, (session,)) if mode == "send" else (prepare_all, ())
        rest = (payload, key, work["contact"], *rest)
        # A tenth of the messages comes first and is not measured.
        await every(subscriptions[: -(-messages // 10)], *rest)
        begun, before = time.perf_counter(), time.process_time()
        await every(subscriptions, *rest)
        cpu, seconds = time.process_time() - before, time.perf_counter() - begun
    peak = re.search(r"VmHWM:\s+(\d+)", pathlib.Path("/proc/self/status").read_text())
    report = {"messages": messages, "cpu_us": cpu * 1e6, "seconds": seconds, "peak_kib": int(peak[1])}
    print(json.dumps(report))


asyncio.run(main(*sys.argv[1:]))
