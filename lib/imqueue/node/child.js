'use strict';
// One handle's child: answers requests on one socket, one after the other, and ends when that socket ends.
// A frame: u32 length of its payload, u8 code, payload; numbers are little-endian. node_child.py is the other side.
//
// An adapter is `async (config, child) => ({facts, put, start | take, settle, depth, counts, destroy, close})`.
// `start()` begins to consume and then calls `child.arrived(body, item)`; `take(most)` asks once and returns [body, item]
// pairs, for a library that cannot wait. `settle(items, upTo)`: `upTo` says that nothing older is held.
// `close(unseen)`: `unseen()` takes and returns the items that arrived and no get has returned.
// `child.troubled(error)`: consuming failed and the library goes on; the next get that has nothing to return raises it.
// `child.fail(reason)`: nothing works any more; the child ends with it.

const net = require('node:net');
const path = require('node:path');
const { Rejected } = require('./errors');

const REQUEST = { OPEN: 1, PUT: 2, GET: 3, ACK: 4, DEPTH: 5, COUNTS: 6, DESTROY: 7 };
const ANSWER = { DONE: 0, REJECTED: 1, FAILED: 2 };
const HEAD_BYTES = 5;
const CLOSE_MAX_MS = 2000;
const POLL_MIN_MS = 1;

const socket = new net.Socket({ fd: Number(process.argv[2]) });
const held = new Map(); // receipt -> item, in the order of the receipts
let waiting = []; // [body, item] that arrived and no get has returned
let receipt = 0;
let trouble = null; // an error that no get has raised yet
let wake = null; // called when something arrives while a get waits
let adapter = null;
let config = null;
let isStarted = false;
let refuse = null; // called instead of ending while `open` waits
let isClosing = false;

function fail(reason) {
  if (isClosing) return;
  if (refuse !== null) {
    refuse(reason);
    return;
  }
  console.error(`${reason && reason.message ? reason.message : reason}`);
  process.exit(1);
}

function arrived(body, item) {
  waiting.push([body, item]);
  if (wake !== null) wake();
}

function troubled(error) {
  trouble = error;
  if (wake !== null) wake();
}

// A pause lets everything that came in the same read of the library's socket go into the same batch.
function somethingArrives(timeoutMs) {
  return new Promise((resolve) => {
    const timer = setTimeout(() => done(resolve), timeoutMs);
    function done(then) {
      wake = null;
      clearTimeout(timer);
      then();
    }
    wake = () => done(() => setImmediate(resolve));
  });
}

async function poll(most, deadlineMs) {
  for (let pauseMs = POLL_MIN_MS; ; pauseMs = Math.min(2 * pauseMs, config.poll_max_ms)) {
    waiting = await adapter.take(most);
    const leftMs = deadlineMs - Date.now();
    if (waiting.length > 0 || leftMs <= 0) return;
    await new Promise((resolve) => setTimeout(resolve, Math.min(pauseMs, leftMs)));
  }
}

async function get(payload) {
  const most = payload.readUInt32LE(0);
  const timeoutMs = payload.readDoubleLE(4) * 1000;
  if (adapter.take) await poll(most, Date.now() + timeoutMs);
  else {
    if (!isStarted) await adapter.start();
    isStarted = true;
    if (waiting.length === 0 && trouble === null && timeoutMs > 0) await somethingArrives(timeoutMs);
  }
  if (waiting.length === 0) raiseTrouble();
  const taken = waiting.slice(0, most);
  waiting = waiting.slice(most);
  const head = Buffer.allocUnsafe(8 + 4 * taken.length);
  head.writeUInt32LE(taken.length, 0);
  head.writeUInt32LE(receipt, 4);
  taken.forEach(([body, item], index) => {
    head.writeUInt32LE(body.length, 8 + 4 * index);
    held.set(receipt++, item);
  });
  return [head, ...taken.map(([body]) => body)];
}

function raiseTrouble() {
  if (trouble === null) return;
  const error = trouble;
  trouble = null;
  throw error;
}

async function ack(payload) {
  const items = [];
  let last = -1;
  for (let at = 0; at < payload.length; at += 4) {
    const each = payload.readUInt32LE(at);
    if (!held.has(each)) throw new Error(`message ${each} is not held by this handle`);
    items.push(held.get(each));
    held.delete(each);
    last = Math.max(last, each);
  }
  const [oldest] = held.keys();
  await adapter.settle(items, oldest === undefined || oldest > last);
  return [];
}

function bodiesOf(payload) {
  const count = payload.readUInt32LE(0);
  let at = 4 + 4 * count;
  const bodies = new Array(count);
  for (let index = 0; index < count; index++) {
    const end = at + payload.readUInt32LE(4 + 4 * index);
    bodies[index] = payload.subarray(at, end);
    at = end;
  }
  return bodies;
}

async function open(payload) {
  config = JSON.parse(payload);
  const refused = new Promise((_, reject) => (refuse = reject));
  const make = require(path.join(__dirname, `${config.adapter}.js`));
  adapter = await Promise.race([make(config, { arrived, troubled, fail }), refused]);
  refuse = null;
  return json({ ...adapter.facts, node: process.versions.node });
}

const json = (value) => [Buffer.from(JSON.stringify(value))];

const HANDLERS = {
  [REQUEST.OPEN]: open,
  [REQUEST.PUT]: async (payload) => (await adapter.put(bodiesOf(payload)), []),
  [REQUEST.GET]: get,
  [REQUEST.ACK]: ack,
  [REQUEST.DEPTH]: async () => json(await adapter.depth()),
  [REQUEST.COUNTS]: async () => json(await adapter.counts()),
  [REQUEST.DESTROY]: async () => (await adapter.destroy(), []),
};

async function answer(code, payload) {
  try {
    send(ANSWER.DONE, await HANDLERS[code](payload));
  } catch (error) {
    send(error instanceof Rejected ? ANSWER.REJECTED : ANSWER.FAILED, [Buffer.from(String(error.message || error))]);
  }
}

function send(code, parts) {
  const head = Buffer.allocUnsafe(HEAD_BYTES);
  head.writeUInt32LE(parts.reduce((sum, part) => sum + part.length, 0), 0);
  head[4] = code;
  socket.write(Buffer.concat([head, ...parts]));
}

let chunks = [];
let gatheredBytes = 0;
let neededBytes = HEAD_BYTES;

socket.on('data', (chunk) => {
  chunks.push(chunk);
  gatheredBytes += chunk.length;
  if (gatheredBytes < neededBytes) return;
  const data = chunks.length === 1 ? chunk : Buffer.concat(chunks);
  const endBytes = HEAD_BYTES + data.readUInt32LE(0);
  if (data.length < endBytes) {
    chunks = [data];
    neededBytes = endBytes;
    return;
  }
  chunks = []; // the other side sends nothing more before it has an answer
  gatheredBytes = 0;
  neededBytes = HEAD_BYTES;
  answer(data[4], data.subarray(HEAD_BYTES, endBytes));
});

// The handle was closed, or its process is gone.
async function end() {
  if (isClosing) return;
  isClosing = true;
  setTimeout(() => process.exit(0), CLOSE_MAX_MS);
  try {
    if (adapter !== null && adapter.close) await adapter.close(() => waiting.splice(0).map(([, item]) => item));
  } catch (error) {
    console.error(error); // what could not be put back comes back as it would from a holder that died
  }
  process.exit(0);
}

socket.on('end', end);
socket.on('error', end);
socket.on('close', end);
process.on('uncaughtException', fail);
process.on('unhandledRejection', fail);
console.log = console.error; // some libraries talk
