"""0 when the broker answers an API request: a hung broker's open socket is no service."""

import socket
import struct
import sys

# ApiVersions v0 with correlation id 1 and no client id.
REQUEST = struct.pack(">ihhih", 10, 18, 0, 1, -1)

try:
    with socket.create_connection(("127.0.0.1", 9092), 4) as broker:
        broker.sendall(REQUEST)
        answer = broker.makefile("rb").read(10)
    size, correlation, error = struct.unpack(">iih", answer)
except (OSError, struct.error) as failure:
    sys.exit(f"no answer: {failure}")
sys.exit(not (size > 6 and correlation == 1 and error == 0))
