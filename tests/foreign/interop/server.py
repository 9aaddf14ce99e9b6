"""grpc.testing.TestService with Python's grpcio.

usage: server.py ADDRESS:PORT
"""

import concurrent.futures
import sys
import time

import grpc

messages, services = grpc.protos_and_services("test.proto")
CODES = {code.value[0]: code for code in grpc.StatusCode}


def payload(size):
    return messages.Payload(body=bytes(size))


def echo_metadata(context):
    asked = dict(context.invocation_metadata())
    initial, trailing = "x-grpc-test-echo-initial", "x-grpc-test-echo-trailing-bin"
    if initial in asked:
        context.send_initial_metadata([(initial, asked[initial])])
    if trailing in asked:
        context.set_trailing_metadata([(trailing, asked[trailing])])


def echo_status(request, context):
    if request.response_status.code:
        context.abort(CODES[request.response_status.code], request.response_status.message)


class TestService(services.TestServiceServicer):
    def EmptyCall(self, request, context):
        return messages.Empty()

    def UnaryCall(self, request, context):
        echo_metadata(context)
        echo_status(request, context)
        return messages.SimpleResponse(payload=payload(request.response_size))

    def StreamingOutputCall(self, request, context):
        for wanted in request.response_parameters:
            time.sleep(wanted.interval_us / 1e6)
            yield messages.StreamingOutputCallResponse(payload=payload(wanted.size))

    def StreamingInputCall(self, requests, context):
        total = sum(len(request.payload.body) for request in requests)
        return messages.StreamingInputCallResponse(aggregated_payload_size=total)

    def FullDuplexCall(self, requests, context):
        echo_metadata(context)
        for request in requests:
            echo_status(request, context)
            yield from self.StreamingOutputCall(request, context)


server = grpc.server(concurrent.futures.ThreadPoolExecutor(32))
services.add_TestServiceServicer_to_server(TestService(), server)
server.add_insecure_port(sys.argv[1])
server.start()
server.wait_for_termination()
