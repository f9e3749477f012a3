// Asks a geolookup service, from Node.js.
//
//   node client.js TARGET join REGION_SET < addresses
//   node client.js TARGET takedown REGION_SET < participants
//
// join reads an address a line and prints country, status, verdict and reason of
// each, and its region, such as UA-43, where that is known. takedown reads lines of an
// id and its addresses, and prints the ids of those who are inside, and on standard
// error why others have no verdict, and the addresses of each region. REGION_SET may
// name parts of countries, such as UA/43. Addresses come by standard input, because
// command lines can be seen by others.
// SERVICE_CA is a file of the authorities that sign the service's certificate;
// without it there is no TLS.

import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import grpc from "@grpc/grpc-js";
import loader from "@grpc/proto-loader";
import { RoaringBitmap32 } from "roaring-wasm";

const PROTO = fileURLToPath(new URL("../../../proto", import.meta.url));
const TIMEOUT_MS = 10_000;

// Bytes of the largest message. By default grpc-js receives 4 MiB (an answer about 1.2 million
// addresses), and makes no call again whose request has more than 1 MiB.
const LARGEST = 64 * 1024 * 1024;

// Calls are spread over all addresses of the target's name, such as the pods of a headless Service.
// Those that no worker has answered are made again, and those that were shed for the service's load:
// after as many milliseconds as the service says (grpc-retry-pushback-ms).
const SERVICE_CONFIG = {
  loadBalancingConfig: [{ round_robin: {} }],
  methodConfig: [
    {
      name: [{ service: "geolookup.v1.GeoLookupService" }],
      retryPolicy: {
        maxAttempts: 5,
        initialBackoff: "0.05s",
        maxBackoff: "1s",
        backoffMultiplier: 2,
        retryableStatusCodes: ["UNAVAILABLE", "CANCELLED", "RESOURCE_EXHAUSTED"],
      },
    },
  ],
};

function connect(target) {
  const definition = loader.loadSync("geolookup/v1/geolookup.proto", {
    includeDirs: [PROTO],
    enums: String,
    defaults: true,
  });
  const { GeoLookupService } = grpc.loadPackageDefinition(definition).geolookup.v1;
  const authorities = process.env.SERVICE_CA;
  const credentials = authorities
    ? grpc.credentials.createSsl(readFileSync(authorities))
    : grpc.credentials.createInsecure();
  return new GeoLookupService(target, credentials, {
    "grpc.service_config": JSON.stringify(SERVICE_CONFIG),
    // A second, the default, is longer than all attempts at a call take together.
    "grpc.initial_reconnect_backoff_ms": 100,
    "grpc.max_receive_message_length": LARGEST,
    "grpc.max_send_message_length": LARGEST,
    "grpc.retry_buffer_size": LARGEST,
    "grpc.per_rpc_retry_buffer_size": LARGEST,
  });
}

function call(service, method, request) {
  const ask = promisify(service[method]).bind(service);
  return ask(request, { deadline: Date.now() + TIMEOUT_MS });
}

async function join(service, regionSet) {
  for await (const line of createInterface({ input: process.stdin })) {
    const answer = await call(service, "Lookup", { text: line.trim(), regionSet });
    const { country, status, verdict, reason, region } = answer;
    console.log([country, status, verdict, reason, region].join(" ").trim());
  }
}

// The ids stay here: the service sees addresses in an order, and answers with positions.
async function takedown(service, regionSet) {
  const lines = readFileSync(0, "utf8").split("\n").filter((line) => line.trim());
  const people = lines.map((line, index) => {
    const fields = line.trim().split(/\s+/);
    if (fields.length < 2) throw new Error(`line ${index + 1}: expected an id and addresses`);
    return { id: fields[0], addresses: fields.slice(1) };
  });
  const addresses = people.flatMap((person) => person.addresses);
  const groupSizes = people.map((person) => person.addresses.length);
  const roster = { text: { addresses }, regionSet, groupSizes, regions: true };
  const answer = await call(service, "ClassifyRoster", roster);
  // A service that is older than group_sizes answers about addresses, and has 0 here.
  const { participants } = answer;
  if (participants !== people.length) {
    throw new Error(`asked about ${people.length} participants, answered about ${participants}`);
  }
  for (const { reason, count } of answer.reasonCounts) {
    console.error(count, "undetermined:", reason);
  }
  for (const [region, count] of regionCounts(answer.regions)) {
    console.error(count, "addresses in:", region);
  }
  const inside = RoaringBitmap32.deserialize("portable", answer.inside);
  for (const position of inside) {
    if (position >= people.length) throw new Error("inside: a position beyond the roster");
    console.log(people[position].id);
  }
  inside.dispose();
}

// The column has six bytes an address: the code, filled up with zeros, and none where no region is
// known. It is empty where no address has one.
function regionCounts(column) {
  const counts = new Map();
  for (let at = 0; at < column.length; at += 6) {
    const region = column.toString("ascii", at, at + 6).replace(/\0+$/, "");
    if (region) counts.set(region, (counts.get(region) ?? 0) + 1);
  }
  return counts;
}

const actions = { join, takedown };
const [target, action, regionSet] = process.argv.slice(2);
if (!Object.hasOwn(actions, action ?? "") || !regionSet) {
  console.error("usage: node client.js TARGET join|takedown REGION_SET");
  process.exit(2);
}
const service = connect(target);
try {
  await actions[action](service, regionSet);
} catch (error) {
  console.error("client:", error.message);
  process.exitCode = 1;
} finally {
  service.close();
  process.stdin.destroy(); // else a pipe that stays open keeps the process alive
}
