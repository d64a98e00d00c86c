"""Answers questions of tests/interop.rs with PyPI's http-ece and pywebpush: JSON lines in, JSON lines out.

A question is {"op": ..., ...}, an answer {"ok": ...} or {"error": "..."}. Octets travel in unpadded base64url.
"""

import base64
import json
import sys


def decode(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def encode(octets):
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


def private_key(octets):
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.derive_private_key(int.from_bytes(octets, "big"), ec.SECP256R1())


def decrypt(question):
    import http_ece

    plaintext = http_ece.decrypt(
        decode(question["body"]),
        private_key=private_key(decode(question["private"])),
        auth_secret=decode(question["auth"]),
        version="aes128gcm",
    )
    return encode(plaintext)


def encrypt(question):
    import http_ece
    from cryptography.hazmat.primitives.asymmetric import ec

    body = http_ece.encrypt(
        decode(question["data"]),
        private_key=ec.generate_private_key(ec.SECP256R1()),
        dh=decode(question["p256dh"]),
        auth_secret=decode(question["auth"]),
        rs=question["rs"],
        version="aes128gcm",
    )
    return encode(body)


def send(question):
    import pywebpush

    data = question["data"]
    try:
        response = pywebpush.webpush(
            subscription_info=question["subscription"],
            data=None if data is None else decode(data),
            vapid_private_key=question["key"],
            vapid_claims={"sub": question["sub"]},
            ttl=question["ttl"],
            headers=question["headers"],
            timeout=30,
        )
    except pywebpush.WebPushException as error:
        if error.response is None:
            raise
        response = error.response
    return {"status": response.status_code, "location": response.headers.get("location")}


OPS = {"decrypt": decrypt, "encrypt": encrypt, "send": send}

for line in sys.stdin:
    try:
        question = json.loads(line)
        answer = {"ok": OPS[question["op"]](question)}
    except Exception as error:  # whatever it is, the test wants to read it
        answer = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(answer), flush=True)
