"""The interoperability cases of gRPC with Python's grpcio, over one channel; one line for each: `CASE pass` or `CASE FAIL why`.

usage: client.py ADDRESS:PORT AUTHORITY
"""

import queue
import sys

import grpc

messages, services = grpc.protos_and_services("test.proto")
options = [("grpc.default_authority", sys.argv[2]), ("grpc.enable_retries", 0)]
channel = grpc.insecure_channel(sys.argv[1], options=options)
stub = services.TestServiceStub(channel)

LONG = 20  # seconds, for calls that are to succeed
REQUESTS, ANSWERS = [27182, 8, 1828, 45904], [31415, 9, 2653, 58979]
METADATA = [("x-grpc-test-echo-initial", "test_initial_metadata_value"), ("x-grpc-test-echo-trailing-bin", b"\xab\xab\xab")]


def check(found, expected):
    if found != expected:
        raise AssertionError(f"{found!r} instead of {expected!r}")


def payload(size):
    return messages.Payload(body=bytes(size))


def streamed(sizes, request_size=0):
    wanted = [messages.ResponseParameters(size=size) for size in sizes]
    return messages.StreamingOutputCallRequest(response_parameters=wanted, payload=payload(request_size))


def failure(call):
    """The code and message of a call that has to fail."""
    try:
        call()
    except grpc.RpcError as failed:
        return failed.code().name, failed.details()
    return "OK", ""


class Duplex:
    """FullDuplexCall, a message at a time."""

    def __init__(self, timeout=LONG, **options):
        self.requests = queue.SimpleQueue()
        self.call = stub.FullDuplexCall(iter(self.requests.get, None), timeout=timeout, **options)

    def send(self, request):
        self.requests.put(request)

    def end(self):
        self.requests.put(None)

    def size(self):
        return len(next(self.call).payload.body)


def unary(**options):
    request = messages.SimpleRequest(response_size=314159, payload=payload(271828))
    answer, call = stub.UnaryCall.with_call(request, timeout=LONG, **options)
    check(len(answer.payload.body), 314159)
    return call


def empty_unary():
    check(stub.EmptyCall(messages.Empty(), timeout=LONG), messages.Empty())


def large_unary():
    unary()


def compressed_unary():
    unary(compression=grpc.Compression.Gzip)


def client_streaming():
    requests = (messages.StreamingInputCallRequest(payload=payload(size)) for size in REQUESTS)
    check(stub.StreamingInputCall(requests, timeout=LONG).aggregated_payload_size, sum(REQUESTS))


def server_streaming():
    answers = stub.StreamingOutputCall(streamed(ANSWERS), timeout=LONG)
    check([len(answer.payload.body) for answer in answers], ANSWERS)


def ping_pong():
    duplex = Duplex()
    for request, answer in zip(REQUESTS, ANSWERS):
        duplex.send(streamed([answer], request))
        check(duplex.size(), answer)
    duplex.end()
    check(list(duplex.call), [])


def empty_stream():
    duplex = Duplex()
    duplex.end()
    check(list(duplex.call), [])


def timeout_on_sleeping_server():
    duplex = Duplex(timeout=0.001)
    duplex.send(streamed([], 27182))
    check(failure(duplex.size)[0], "DEADLINE_EXCEEDED")
    duplex.end()


def cancel_after_begin():
    requests = queue.SimpleQueue()
    call = stub.StreamingInputCall.future(iter(requests.get, None), timeout=LONG)
    call.cancel()
    check(call.code().name, "CANCELLED")
    requests.put(None)


def cancel_after_first_response():
    duplex = Duplex()
    duplex.send(streamed([31415], 27182))
    check(duplex.size(), 31415)
    duplex.call.cancel()
    check(failure(duplex.size)[0], "CANCELLED")
    duplex.end()


def custom_metadata():
    call = unary(metadata=METADATA)
    duplex = Duplex(metadata=METADATA)
    duplex.send(streamed([314159], 271828))
    check(duplex.size(), 314159)
    duplex.end()
    check(list(duplex.call), [])
    for answered in (call, duplex.call):
        found = dict(answered.initial_metadata()) | dict(answered.trailing_metadata())
        check([(name, found.get(name)) for name, _ in METADATA], METADATA)


def status(code, message):
    return messages.EchoStatus(code=code.value[0], message=message)


def status_code_and_message():
    wanted = status(grpc.StatusCode.UNKNOWN, "test status message")
    request = messages.SimpleRequest(response_status=wanted)
    check(failure(lambda: stub.UnaryCall(request, timeout=LONG)), ("UNKNOWN", wanted.message))
    duplex = Duplex()
    duplex.send(messages.StreamingOutputCallRequest(response_status=wanted))
    duplex.end()
    check(failure(duplex.size), ("UNKNOWN", wanted.message))


def special_status_message():
    wanted = status(grpc.StatusCode.UNKNOWN, "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n")
    request = messages.SimpleRequest(response_status=wanted)
    check(failure(lambda: stub.UnaryCall(request, timeout=LONG)), ("UNKNOWN", wanted.message))


def unimplemented_method():
    check(failure(lambda: stub.UnimplementedCall(messages.Empty(), timeout=LONG))[0], "UNIMPLEMENTED")


def unimplemented_service():
    other = services.UnimplementedServiceStub(channel)
    check(failure(lambda: other.UnimplementedCall(messages.Empty(), timeout=LONG))[0], "UNIMPLEMENTED")


for case in [
    empty_unary, large_unary, compressed_unary, client_streaming, server_streaming, ping_pong, empty_stream,
    timeout_on_sleeping_server, cancel_after_begin, cancel_after_first_response, custom_metadata,
    status_code_and_message, special_status_message, unimplemented_method, unimplemented_service,
]:
    try:
        case()
        print(case.__name__, "pass")
    except Exception as failed:
        print(case.__name__, "FAIL", repr(failed).replace("\n", " "))
