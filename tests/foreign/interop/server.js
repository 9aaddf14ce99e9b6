// grpc.testing.TestService with Node's grpc-js.
//
// usage: server.js ADDRESS:PORT

"use strict";
const { setTimeout: sleep } = require("timers/promises");
const { grpc, testing } = require("./grpc.js");

const payload = (size) => ({ body: Buffer.alloc(size) });

/** Sends the initial metadata that was asked for; the trailing metadata to send. */
function echoMetadata(call) {
  const [initial, trailing] = ["x-grpc-test-echo-initial", "x-grpc-test-echo-trailing-bin"];
  const answer = (name) => {
    const metadata = new grpc.Metadata();
    for (const value of call.metadata.get(name)) metadata.add(name, value);
    return metadata;
  };
  if (call.metadata.get(initial).length) call.sendMetadata(answer(initial));
  return answer(trailing);
}

/** The failure that a request asks for, if any. */
function failure({ response_status: status }) {
  return status?.code ? { code: status.code, details: status.message } : null;
}

async function answer(request, call) {
  for (const { size, interval_us } of request.response_parameters) {
    await sleep(interval_us / 1000);
    call.write({ payload: payload(size) });
  }
}

const service = {
  EmptyCall: (call, done) => done(null, {}),

  UnaryCall(call, done) {
    const trailing = echoMetadata(call);
    done(failure(call.request), { payload: payload(call.request.response_size) }, trailing);
  },

  async StreamingOutputCall(call) {
    await answer(call.request, call);
    call.end();
  },

  StreamingInputCall(call, done) {
    let total = 0;
    call.on("data", (request) => (total += request.payload.body.length));
    call.on("end", () => done(null, { aggregated_payload_size: total }));
  },

  FullDuplexCall(call) {
    const trailing = echoMetadata(call);
    let turn = Promise.resolve();
    const one = async (request) => {
      const failed = failure(request);
      if (failed) call.emit("error", failed);
      else await answer(request, call);
    };
    call.on("data", (request) => (turn = turn.then(() => one(request))));
    call.on("end", () => turn.then(() => call.end(trailing)));
  },
};

const server = new grpc.Server();
server.addService(testing.TestService.service, service);
server.bindAsync(process.argv[2], grpc.ServerCredentials.createInsecure(), (failed) => {
  if (failed) throw failed;
});
