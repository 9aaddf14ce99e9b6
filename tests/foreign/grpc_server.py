"""A gRPC server of bare bytes (no generated code), for the system tests.

usage: grpc_server.py ADDRESS:PORT NAME

Service veer.test.Echo; every answer begins with NAME and a colon.
"""

import concurrent.futures
import sys
import threading

import grpc

NAME = sys.argv[2].encode()
gave_up = set()


def unary(request, context):
    asked = dict(context.invocation_metadata())
    head = [("x-server", sys.argv[2])]
    head += [(name.replace("ask", "answer"), value) for name, value in asked.items() if name in ("x-ask", "x-ask-bin")]
    context.send_initial_metadata(head)
    context.set_trailing_metadata([("x-trailer", "last"), ("x-caller", asked.get("x-veer-client-id", "nobody"))])
    return NAME + b":" + request


def split(request, context):
    """As many answers as the request says."""
    for n in range(int(request)):
        yield NAME + b":%d" % n


def join(requests, context):
    """All requests as one."""
    return NAME + b":" + b",".join(requests)


def chat(requests, context):
    """An answer to each request, at once."""
    for request in requests:
        yield NAME + b":" + request


def fail(request, context):
    context.set_trailing_metadata([("x-why", "asked to")])
    context.abort(grpc.StatusCode.FAILED_PRECONDITION, "100 % wrong: grüße")


def fail_late(request, context):
    yield NAME + b":one"
    context.abort(grpc.StatusCode.DATA_LOSS, "after one")


def wait(request, context):
    """Says who it is, then waits for the caller to give up."""
    ended = threading.Event()
    context.add_callback(ended.set)
    yield NAME + b":%.3f" % (context.time_remaining() or -1)
    if ended.wait(20):
        gave_up.add(request)


def heard(request, context):
    """Whether the caller of `Wait` with this request gave up."""
    return NAME + (b":yes" if request in gave_up else b":no")


handlers = {
    "Unary": grpc.unary_unary_rpc_method_handler(unary),
    "Canary": grpc.unary_unary_rpc_method_handler(unary),
    "Split": grpc.unary_stream_rpc_method_handler(split),
    "Join": grpc.stream_unary_rpc_method_handler(join),
    "Chat": grpc.stream_stream_rpc_method_handler(chat),
    "Fail": grpc.unary_unary_rpc_method_handler(fail),
    "FailLate": grpc.unary_stream_rpc_method_handler(fail_late),
    "Wait": grpc.unary_stream_rpc_method_handler(wait),
    "Heard": grpc.unary_unary_rpc_method_handler(heard),
}
server = grpc.server(concurrent.futures.ThreadPoolExecutor(32))
server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("veer.test.Echo", handlers)])
server.add_insecure_port(sys.argv[1])
server.start()
server.wait_for_termination()
