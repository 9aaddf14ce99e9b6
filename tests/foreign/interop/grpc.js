// gRPC for Node from target/test-node, and grpc.testing.

"use strict";
const path = require("path");

const installed = path.join(__dirname, "../../../target/test-node/");
const load = require("module").createRequire(installed);
const grpc = load("@grpc/grpc-js");
const options = { keepCase: true, defaults: true };
const definition = load("@grpc/proto-loader").loadSync(path.join(__dirname, "test.proto"), options);

module.exports = { grpc, testing: grpc.loadPackageDefinition(definition).grpc.testing };
