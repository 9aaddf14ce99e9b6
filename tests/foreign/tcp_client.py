"""Talks to tcp_server.py and prints its greeting; exits with an error when a byte is not as it should be.

usage: tcp_client.py ADDRESS:PORT [HTTP_PROXY_ADDRESS:PORT]

With a proxy the connection is a tunnel (`CONNECT ADDRESS:PORT`).
"""

import socket
import sys

host, port = (sys.argv[2:] or sys.argv[1:])[0].rsplit(":", 1)
stream = socket.create_connection((host, int(port)), timeout=10)
file = stream.makefile("rb")
if sys.argv[2:]:
    stream.sendall(f"CONNECT {sys.argv[1]} HTTP/1.1\r\nHost: {sys.argv[1]}\r\n\r\n".encode())
    status = file.readline()
    assert b" 200" in status, (status, file.read(300))
    while file.readline() not in (b"\r\n", b""):
        pass
# Not a byte has been sent to the server yet.
greeting = file.readline()
assert greeting.startswith(b"220 "), greeting
big = b"x" * 100_000
for line in [b"hello\r\n", b"\x00\xff\x80 bytes\r\n", big + b"\r\n"]:
    stream.sendall(line)
    echo = file.readline()
    assert echo == line.upper(), (line[:40], echo[:40], len(echo))
stream.shutdown(socket.SHUT_WR)
assert file.read() == b"bye 3\r\n", "the other half must stay open until the server closes it"
print(greeting.decode().strip())
