"""An HTTP/1.1 application for the system tests; standard library only.

usage: app.py ADDRESS:PORT NAME

| path                              | answer                                                                          |
|-----------------------------------|---------------------------------------------------------------------------------|
| /blob?size=N                      | N bytes, their SHA-256 in x-sha256                                              |
| /hash                             | length and SHA-256 of the request's body, and its trailers                      |
| /trailers                         | a chunked body with the trailer x-checksum                                      |
| /sleep?ms=N                       | "late", after N milliseconds                                                    |
| /flaky?key=K&fail=N&status=S      | S for the first N requests with this key, then 200; says how many it has seen   |
| /count?key=K                      | how many requests with this key /flaky has seen                                 |
| /ws                               | WebSocket: greets first, then echoes                                            |
| anything else                     | what it was asked, as JSON                                                      |

Every answer has x-served-by: NAME.
"""

import asyncio
import base64
import hashlib
import json
import struct
import sys
from urllib.parse import parse_qs, urlsplit

NAME = sys.argv[2]
MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
asked = {}


async def read_head(reader):
    """The request line and the fields, or None at the end of the connection."""
    head = await reader.readuntil(b"\r\n\r\n")
    line, *fields = head[:-4].decode("latin-1").split("\r\n")
    method, target, _ = line.split(" ")
    pairs = [field.split(":", 1) for field in fields]
    return method, target, [(name.lower(), value.strip()) for name, value in pairs]


async def read_body(reader, fields, take):
    """Gives the body to `take` piece by piece; returns its trailers."""
    if fields.get("transfer-encoding", "").lower() == "chunked":
        while True:
            size = int((await reader.readuntil(b"\r\n")).split(b";")[0], 16)
            if size == 0:
                break
            take(await reader.readexactly(size))
            await reader.readexactly(2)
        trailers = {}
        while (line := await reader.readuntil(b"\r\n")) != b"\r\n":
            name, value = line.decode("latin-1").split(":", 1)
            trailers[name.lower()] = value.strip()
        return trailers
    left = int(fields.get("content-length", 0))
    while left:
        piece = await reader.read(min(left, 1 << 16))
        if not piece:
            raise asyncio.IncompleteReadError(b"", left)
        left -= len(piece)
        take(piece)
    return {}


def blob(size):
    """Bytes that do not compress to a repeated block, the same for the same size."""
    out = bytearray()
    n = 0
    while len(out) < size:
        out += hashlib.sha256(str(n).encode()).digest() * 64
        n += 1
    return bytes(out[:size])


def answer(status, body, fields=()):
    lines = [f"HTTP/1.1 {status} because", f"x-served-by: {NAME}", f"content-length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in fields]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


def as_json(value, status=200):
    return answer(status, json.dumps(value).encode() + b"\n", [("content-type", "application/json"), ("x-app", "here")])


async def one(reader, writer):
    method, target, pairs = await read_head(reader)
    fields = dict(pairs)
    url = urlsplit(target)
    query = {name: values[0] for name, values in parse_qs(url.query).items()}
    if url.path == "/ws" and fields.get("upgrade", "").lower() == "websocket":
        await websocket(reader, writer, fields)
        return False
    if fields.get("expect", "").lower() == "100-continue":
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    digest, length = hashlib.sha256(), 0

    def take(piece):
        nonlocal length
        digest.update(piece)
        length += len(piece)

    trailers = await read_body(reader, fields, take)
    if url.path == "/blob":
        body = blob(int(query["size"]))
        writer.write(answer(200, body, [("x-sha256", hashlib.sha256(body).hexdigest())]))
    elif url.path == "/hash":
        writer.write(as_json({"bytes": length, "sha256": digest.hexdigest(), "trailers": trailers}))
    elif url.path == "/trailers":
        head = f"HTTP/1.1 200 OK\r\nx-served-by: {NAME}\r\ntransfer-encoding: chunked\r\ntrailer: x-checksum\r\n\r\n"
        writer.write(head.encode() + b"5\r\nhello\r\n0\r\nx-checksum: 5d41402a\r\n\r\n")
    elif url.path == "/sleep":
        await asyncio.sleep(int(query["ms"]) / 1000)
        writer.write(answer(200, b"late\n"))
    elif url.path == "/flaky":
        asked[query["key"]] = count = asked.get(query["key"], 0) + 1
        status = int(query["status"]) if count <= int(query["fail"]) else 200
        writer.write(as_json({"asked": count}, status))
    elif url.path == "/count":
        writer.write(as_json({"asked": asked.get(query["key"], 0)}))
    else:
        writer.write(as_json({"name": NAME, "method": method, "target": target, "fields": pairs}))
    await writer.drain()
    return fields.get("connection", "").lower() != "close"


def frame(opcode, payload):
    size = len(payload)
    if size < 126:
        head = struct.pack("!BB", 0x80 | opcode, size)
    elif size < 1 << 16:
        head = struct.pack("!BBH", 0x80 | opcode, 126, size)
    else:
        head = struct.pack("!BBQ", 0x80 | opcode, 127, size)
    return head + payload


async def websocket(reader, writer, fields):
    accept = base64.b64encode(hashlib.sha1(fields["sec-websocket-key"].encode() + MAGIC).digest()).decode()
    head = f"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-accept: {accept}\r\n\r\n"
    writer.write(head.encode() + frame(1, f"hello from {NAME}".encode()))
    while True:
        first, second = await reader.readexactly(2)
        size = second & 0x7F
        if size == 126:
            (size,) = struct.unpack("!H", await reader.readexactly(2))
        elif size == 127:
            (size,) = struct.unpack("!Q", await reader.readexactly(8))
        mask = await reader.readexactly(4)
        payload = await reader.readexactly(size)
        payload = bytes(byte ^ mask[n % 4] for n, byte in enumerate(payload))
        opcode = first & 0x0F
        writer.write(frame(10 if opcode == 9 else opcode, payload))
        await writer.drain()
        if opcode == 8:
            return


async def serve(reader, writer):
    try:
        while await one(reader, writer):
            pass
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def main():
    host, port = sys.argv[1].rsplit(":", 1)
    server = await asyncio.start_server(serve, host, int(port), limit=1 << 18)
    async with server:
        await server.serve_forever()


asyncio.run(main())
