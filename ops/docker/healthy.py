"""The image's HEALTHCHECK: `healthy.py [PORT]` ends with 0 when the worker of this container answers on its port. Without a
port it asks at those of both workers, of which a container has one; where containers share a network, name it, or each would
vouch for the other. It imports no livedex: starting a second one every ten seconds would cost more than the answer is worth.
"""

import os
import sys
import urllib.request
from http.client import HTTPException

PORTS = (("LIVEDEX_METRICS_PORT", "9108"), ("LIVEDEX_HTTP_PORT", "8080"))  # of the index worker, of the query worker
DIRECTLY = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def alive(port: str) -> bool:
    """Whether a worker answers there."""
    try:
        with DIRECTLY.open(f"http://127.0.0.1:{port}/healthz", timeout=3) as answer:
            return bool(answer.status == 200)
    except (OSError, HTTPException):
        return False


if __name__ == "__main__":
    asked = sys.argv[1:] or [os.environ.get(name, default) for name, default in PORTS]
    sys.exit(not any(map(alive, asked)))
