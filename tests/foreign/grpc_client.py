"""Calls grpc_server.py in every way that gRPC has, over one channel, and prints what came of it as one JSON object.

usage: grpc_client.py ADDRESS:PORT AUTHORITY
"""

import collections
import json
import sys
import threading
import time

import grpc

OPTIONS = [("grpc.default_authority", sys.argv[2]), ("grpc.enable_retries", 0), ("grpc.max_receive_message_length", -1)]
channel = grpc.insecure_channel(sys.argv[1], options=OPTIONS)


def method(kind, name, service="veer.test.Echo"):
    return getattr(channel, kind)(f"/{service}/{name}", None, None)


def error(call):
    """What a call that must fail failed with."""
    try:
        call()
    except grpc.RpcError as failed:
        trailers = dict(failed.trailing_metadata() or [])
        return {"code": failed.code().name, "details": failed.details(), "why": trailers.get("x-why")}
    return {"code": "OK"}


def unary():
    return method("unary_unary", "Unary")(b"hello", timeout=10).decode().split(":", 1)[1]


def canary():
    """Who serves one method, and who another of the same service."""
    who = lambda name: method("unary_unary", name)(b"", timeout=10).decode().split(":")[0]
    return {"Unary": who("Unary"), "Canary": who("Canary")}


def metadata():
    answer, call = method("unary_unary", "Unary").with_call(
        b"", timeout=10, metadata=[("x-ask", "plain"), ("x-ask-bin", bytes(range(256)))]
    )
    head, trailers = dict(call.initial_metadata()), dict(call.trailing_metadata())
    return {
        "plain": head.get("x-answer"),
        "binary": head.get("x-answer-bin") == bytes(range(256)),
        "trailer": trailers.get("x-trailer"),
        "caller": trailers.get("x-caller"),
    }


def large():
    sent = bytes(range(256)) * (2 << 12)
    return method("unary_unary", "Unary")(sent, timeout=20).split(b":", 1)[1] == sent


def server_streaming():
    answers = [answer.decode() for answer in method("unary_stream", "Split")(b"100", timeout=10)]
    return {"count": len(answers), "in_order": [a.split(":")[1] for a in answers] == [str(n) for n in range(100)]}


def client_streaming():
    return method("stream_unary", "Join")(iter([b"a", b"b", b"c"]), timeout=10).decode().split(":", 1)[1]


def bidi():
    """Each request is sent only when the answer to the one before has come: nothing may be held back on the way."""
    turn = threading.Semaphore(1)

    def requests():
        for n in range(20):
            turn.acquire()
            yield b"%d" % n

    answers = []
    for answer in method("stream_stream", "Chat")(requests(), timeout=10):
        answers.append(answer.decode().split(":")[1])
        turn.release()
    return answers == [str(n) for n in range(20)]


def fail():
    return error(lambda: method("unary_unary", "Fail")(b"", timeout=10))


def fail_late():
    got = []
    result = error(lambda: got.extend(method("unary_stream", "FailLate")(b"", timeout=10)))
    return {**result, "before": len(got)}


def unimplemented():
    return error(lambda: method("unary_unary", "NoSuchMethod")(b"", timeout=10))


def server_heard(name, token):
    """Whether the server `name` hears that the caller of `Wait` with this token gave up."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        if method("unary_unary", "Heard")(token, timeout=10).decode() == f"{name}:yes":
            return True
    return False


def deadline():
    begun, got = time.monotonic(), []

    def call():
        for answer in method("unary_stream", "Wait")(b"deadline", timeout=1):
            got.append(answer.decode())

    result = error(call)
    took = time.monotonic() - begun
    who, left = got[0].split(":")
    return {
        **result,
        "in_time": 0.9 < took < 3,
        "server_knew": 0 < float(left) <= 1.1,
        "server_heard": server_heard(who, b"deadline"),
    }


def cancel():
    call = method("unary_stream", "Wait")(b"cancel")
    who = next(call).decode().split(":")[0]
    call.cancel()
    return {"code": error(lambda: next(call))["code"], "server_heard": server_heard(who, b"cancel")}


def spread():
    """How many of 300 calls over this one channel, hence one connection, each server answered."""
    call = method("unary_unary", "Unary")
    return collections.Counter(call(b"", timeout=10).decode().split(":")[0] for _ in range(300))


cases = [
    unary, canary, metadata, large, server_streaming, client_streaming, bidi, fail, fail_late, unimplemented, deadline,
    cancel, spread,
]
wanted = sys.argv[3:] or [case.__name__ for case in cases]
results = {}
for case in cases:
    if case.__name__ in wanted:
        try:
            results[case.__name__] = case()
        except Exception as failed:  # the test prints it beside the other results
            results[case.__name__] = {"exception": repr(failed)}
print(json.dumps(results))
