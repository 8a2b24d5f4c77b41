"""The client's side of SCRAM-SHA-256 (RFC 5802, RFC 7677), with the standard library only."""

import base64
import functools
import hashlib
import hmac
import os

from processes import Failed

HASH = "sha256"
# Fewer would not be accepted by a server that follows RFC 7677; more would be a joke on us.
ITERATIONS = range(4096, 10_000_001)


@functools.cache
def salted_password(password, salt, iterations):
    """The costly step, done once for each salt, as a client that logs in often would."""
    return hashlib.pbkdf2_hmac(HASH, password.encode(), salt, iterations)


def _hmac(key, text):
    return hmac.digest(key, text if isinstance(text, bytes) else text.encode(), HASH)


class Exchange:
    """One log-in: `first`, then `final` with the server's answer, then `verify` with its last."""

    def __init__(self, user, password, nonce=None):
        name = user.replace("=", "=3D").replace(",", "=2C")
        self.password = password
        self.nonce = nonce or base64.b64encode(os.urandom(18)).decode()
        self.bare = f"n={name},r={self.nonce}"
        self.server_signature = None

    def first(self):
        return "n,," + self.bare

    def final(self, server_first):
        fields = dict(part.split("=", 1) for part in server_first.split(",") if "=" in part)
        salt, iterations = base64.b64decode(fields["s"]), int(fields["i"])
        if not fields["r"].startswith(self.nonce) or iterations not in ITERATIONS:
            raise Failed("the server's part of the log-in makes no sense")
        salted = salted_password(self.password, salt, iterations)
        without_proof = f"c=biws,r={fields['r']}"
        whole = f"{self.bare},{server_first},{without_proof}"
        client_key = _hmac(salted, b"Client Key")
        signature = _hmac(hashlib.new(HASH, client_key).digest(), whole)
        proof = bytes(a ^ b for a, b in zip(client_key, signature))
        self.server_signature = _hmac(_hmac(salted, b"Server Key"), whole)
        return f"{without_proof},p={base64.b64encode(proof).decode()}"

    def verify(self, server_final):
        said = base64.b64decode(server_final.removeprefix("v="))
        if not hmac.compare_digest(said, self.server_signature):
            raise Failed("the server does not know the password either")
