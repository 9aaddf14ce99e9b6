"""A WebSocket client of bare bytes (RFC 6455), through whatever listens on ADDRESS:PORT.

usage: websocket_client.py ADDRESS:PORT HOST PATH

Prints the server's greeting; exits with an error when anything is not as the RFC says.
"""

import base64
import hashlib
import os
import socket
import struct
import sys

MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
host, port = sys.argv[1].rsplit(":", 1)
stream = socket.create_connection((host, int(port)), timeout=10)
file = stream.makefile("rb")


def send(opcode, payload):
    size, mask = len(payload), os.urandom(4)
    head = bytes([0x80 | opcode])
    if size < 126:
        head += bytes([0x80 | size])
    elif size < 1 << 16:
        head += bytes([0x80 | 126]) + struct.pack("!H", size)
    else:
        head += bytes([0x80 | 127]) + struct.pack("!Q", size)
    stream.sendall(head + mask + bytes(byte ^ mask[n % 4] for n, byte in enumerate(payload)))


def receive():
    first, second = file.read(2)
    assert not second & 0x80, "a server must not mask"
    size = second & 0x7F
    if size == 126:
        (size,) = struct.unpack("!H", file.read(2))
    elif size == 127:
        (size,) = struct.unpack("!Q", file.read(8))
    return first & 0x0F, file.read(size)


key = base64.b64encode(os.urandom(16))
request = [
    f"GET {sys.argv[3]} HTTP/1.1",
    f"Host: {sys.argv[2]}",
    "Upgrade: websocket",
    "Connection: keep-alive, Upgrade",
    f"Sec-WebSocket-Key: {key.decode()}",
    "Sec-WebSocket-Version: 13",
]
stream.sendall(("\r\n".join(request) + "\r\n\r\n").encode())
status = file.readline().decode().split()
fields = {}
while (line := file.readline()) not in (b"\r\n", b""):
    name, value = line.decode().split(":", 1)
    fields[name.lower()] = value.strip()
assert status[1] == "101", (status, fields, file.read(200))
assert fields["upgrade"].lower() == "websocket", fields
assert "upgrade" in fields["connection"].lower(), fields
assert fields["sec-websocket-accept"].encode() == base64.b64encode(hashlib.sha1(key + MAGIC).digest()), fields

# The server speaks first: nothing has been sent after the handshake.
opcode, greeting = receive()
assert opcode == 1, opcode
for opcode, payload in [(1, "grüße".encode()), (2, os.urandom(200_000)), (9, b"are you there"), (1, b"")]:
    send(opcode, payload)
    back, echo = receive()
    assert back == (10 if opcode == 9 else opcode), (opcode, back)
    assert echo == payload, f"{len(payload)} bytes went, other {len(echo)} came back"
send(8, struct.pack("!H", 1000))
assert receive() == (8, struct.pack("!H", 1000))
assert file.read() == b"", "the server must close after the closing handshake"
print(greeting.decode())
