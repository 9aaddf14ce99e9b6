// The interoperability cases of gRPC with Node's grpc-js; one line for each: `CASE pass` or `CASE FAIL why`.
//
// usage: client.js ADDRESS:PORT AUTHORITY

"use strict";
const assert = require("assert/strict");
const { grpc, testing } = require("./grpc.js");

const [target, authority] = process.argv.slice(2);
const options = { "grpc.default_authority": authority, "grpc.enable_retries": 0 };
const connect = (Client, more) => new Client(target, grpc.credentials.createInsecure(), { ...options, ...more });
const client = connect(testing.TestService);

const LONG = 20000; // milliseconds, for calls that are to succeed
const REQUESTS = [27182, 8, 1828, 45904];
const ANSWERS = [31415, 9, 2653, 58979];
const INITIAL = "x-grpc-test-echo-initial";
const TRAILING = "x-grpc-test-echo-trailing-bin";

const payload = (size) => ({ body: Buffer.alloc(size) });
const within = (milliseconds) => ({ deadline: Date.now() + milliseconds });
const streamed = (sizes, size) => ({ response_parameters: sizes.map((size) => ({ size })), payload: payload(size) });

/** A call with one answer: the failure or null, the answer, both kinds of metadata. */
function unary(method, request, { on = client, metadata = new grpc.Metadata() } = {}) {
  return new Promise((resolve) => {
    const result = {};
    const call = on[method](request, metadata, within(LONG), (failed, answer) => Object.assign(result, { failed, answer }));
    call.on("metadata", (initial) => (result.initial = initial));
    call.on("status", (status) => resolve({ ...result, trailing: status.metadata }));
  });
}

async function large(more) {
  const result = await unary("UnaryCall", { response_size: 314159, payload: payload(271828) }, more);
  assert.equal(result.failed ?? null, null);
  assert.equal(result.answer.payload.body.length, 314159);
  return result;
}

/** FullDuplexCall: sizes of the answers one by one, and its end. */
function duplex(metadata = new grpc.Metadata(), timeout = LONG) {
  const call = client.FullDuplexCall(metadata, within(timeout));
  const [sizes, waiting] = [[], []];
  call.on("data", ({ payload: { body } }) => (waiting.length ? waiting.shift()(body.length) : sizes.push(body.length)));
  call.on("error", () => {});
  call.on("metadata", (initial) => (call.initial = initial));
  call.ended = new Promise((resolve) => call.on("status", resolve));
  const next = () => (sizes.length ? sizes.shift() : new Promise((resolve) => waiting.push(resolve)));
  // Also over when the call is.
  call.size = () => Promise.race([next(), call.ended.then(({ code, details }) => `status ${code} ${details}`)]);
  return call;
}

async function refused(method, request, code, details, more) {
  const { failed } = await unary(method, request, more);
  assert.equal(failed?.code, code);
  if (details !== null) assert.equal(failed.details, details);
}

const cases = {
  async empty_unary() {
    const { failed, answer } = await unary("EmptyCall", {});
    assert.equal(failed ?? null, null);
    assert.deepEqual({ ...answer }, {});
  },

  large_unary: () => large(),

  async compressed_unary() {
    const on = connect(testing.TestService, { "grpc.default_compression_algorithm": grpc.compressionAlgorithms.gzip });
    await large({ on });
    on.close();
  },

  async client_streaming() {
    const { failed, answer } = await new Promise((resolve) => {
      const call = client.StreamingInputCall(within(LONG), (failed, answer) => resolve({ failed, answer }));
      for (const size of REQUESTS) call.write({ payload: payload(size) });
      call.end();
    });
    assert.equal(failed, null);
    assert.equal(answer.aggregated_payload_size, 74922);
  },

  async server_streaming() {
    const sizes = [];
    for await (const { payload } of client.StreamingOutputCall(streamed(ANSWERS, 0), within(LONG))) {
      sizes.push(payload.body.length);
    }
    assert.deepEqual(sizes, ANSWERS);
  },

  async ping_pong() {
    const call = duplex();
    for (const [n, size] of ANSWERS.entries()) {
      call.write(streamed([size], REQUESTS[n]));
      assert.equal(await call.size(), size);
    }
    call.end();
    assert.equal((await call.ended).code, grpc.status.OK);
  },

  async empty_stream() {
    const call = duplex();
    call.end();
    assert.match(String(await call.size()), /^status 0 /);
  },

  async timeout_on_sleeping_server() {
    const call = duplex(undefined, 1);
    call.write(streamed([], 27182));
    assert.equal((await call.ended).code, grpc.status.DEADLINE_EXCEEDED);
  },

  async cancel_after_begin() {
    const failed = await new Promise((resolve) => client.StreamingInputCall(within(LONG), resolve).cancel());
    assert.equal(failed?.code, grpc.status.CANCELLED);
  },

  async cancel_after_first_response() {
    const call = duplex();
    call.write(streamed([31415], 27182));
    assert.equal(await call.size(), 31415);
    call.cancel();
    assert.equal((await call.ended).code, grpc.status.CANCELLED);
  },

  async custom_metadata() {
    const metadata = new grpc.Metadata();
    metadata.set(INITIAL, "test_initial_metadata_value");
    metadata.set(TRAILING, Buffer.from([0xab, 0xab, 0xab]));
    const unary = await large({ metadata });
    const call = duplex(metadata);
    call.write(streamed([314159], 271828));
    assert.equal(await call.size(), 314159);
    call.end();
    const { code, metadata: trailing } = await call.ended;
    assert.equal(code, grpc.status.OK);
    for (const got of [unary, { initial: call.initial, trailing }]) {
      assert.deepEqual(got.initial.get(INITIAL), metadata.get(INITIAL));
      assert.deepEqual(got.trailing.get(TRAILING), metadata.get(TRAILING));
    }
  },

  async status_code_and_message() {
    const response_status = { code: grpc.status.UNKNOWN, message: "test status message" };
    await refused("UnaryCall", { response_status }, grpc.status.UNKNOWN, response_status.message);
    const call = duplex();
    call.write({ response_status });
    call.end();
    const { code, details } = await call.ended;
    assert.deepEqual([code, details], [grpc.status.UNKNOWN, response_status.message]);
  },

  async special_status_message() {
    const message = "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n";
    const response_status = { code: grpc.status.UNKNOWN, message };
    await refused("UnaryCall", { response_status }, grpc.status.UNKNOWN, message);
  },

  unimplemented_method: () => refused("UnimplementedCall", {}, grpc.status.UNIMPLEMENTED, null),

  async unimplemented_service() {
    const on = connect(testing.UnimplementedService);
    await refused("UnimplementedCall", {}, grpc.status.UNIMPLEMENTED, null, { on });
    on.close();
  },
};

(async () => {
  for (const [name, run] of Object.entries(cases)) {
    try {
      await run();
      console.log(name, "pass");
    } catch (failed) {
      console.log(name, "FAIL", String(failed).replace(/\s+/g, " "));
    }
  }
  // By itself it would end only when the deadline of the cancelled calls has come.
  process.exit();
})();
