'use strict';
// One producer process and one consumer process on a fresh queue, as fast as they go: the job comes as JSON on standard
// input, the rate goes to standard output. A library's file has `producer`, `consumer` and, where it is needed, `create`.

const { fork } = require('node:child_process');
const { randomBytes } = require('node:crypto');

const REPORT_MS = 5;
const DRAIN_MAX_MS = 20000;

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const load = (job) => require(`./${job.library}.js`);

async function produce(job) {
  const put = await load(job).producer(job);
  const bodies = Array.from({ length: job.batch }, () => randomBytes(job.size_bytes));
  let received = 0;
  let sent = 0;
  let go;
  const started = new Promise((resolve) => (go = resolve));
  process.on('message', (message) => (message === 'go' ? go() : (received = message.received)));
  process.send('ready');
  await started;
  const endMs = Date.now() + 1000 * job.seconds_s;
  while (Date.now() < endMs) {
    while (sent - received + job.batch > job.backlog_max && Date.now() < endMs) await sleep(1);
    await put(bodies);
    sent += job.batch;
  }
  process.send({ sent });
}

async function consume(job) {
  let settled = 0;
  let lastMs = 0;
  let sent = null;
  let startMs = null;
  process.on('message', (message) => (message === 'go' ? (startMs = performance.now()) : (sent = message.sent)));
  await load(job).consumer(job, (count) => {
    settled += count;
    lastMs = performance.now();
  });
  process.send('ready');
  setInterval(() => {
    process.send({ received: settled });
    if (sent !== null && settled >= sent) {
      process.send({ rate_hz: settled / ((lastMs - startMs) / 1000) });
      setTimeout(() => process.exit(0), 10);
    }
  }, REPORT_MS);
}

async function run(job) {
  if (load(job).create) await load(job).create(job);
  const [producer, consumer] = ['produce', 'consume'].map((role) => fork(__filename, [role]));
  const fail = (reason) => {
    producer.kill('SIGKILL');
    consumer.kill('SIGKILL');
    console.error(reason);
    process.exit(1);
  };
  setTimeout(() => fail('the bare loop took too long'), 1000 * job.seconds_s + DRAIN_MAX_MS);
  let ready = 0;
  const onReady = () => ++ready === 2 && [producer, consumer].forEach((each) => each.send('go'));
  producer.on('message', (message) => (message === 'ready' ? onReady() : consumer.send(message)));
  consumer.on('message', (message) => {
    if (message === 'ready') onReady();
    else if (message.rate_hz === undefined) producer.connected && producer.send(message, () => {});
    else {
      producer.kill('SIGKILL');
      console.log(message.rate_hz);
      process.exit(0);
    }
  });
  for (const [name, each] of Object.entries({ producer, consumer })) {
    each.on('exit', (code) => code && fail(`the ${name} ended with ${code}`));
    each.send({ job });
  }
}

const read = async () => {
  let text = '';
  for await (const chunk of process.stdin) text += chunk;
  return JSON.parse(text);
};

const role = { produce, consume }[process.argv[2]];
if (role) {
  process.on('disconnect', () => process.exit(1));
  process.once('message', ({ job }) => role(job));
} else read().then(run);
