'use strict';
// Kue: a batch of job.save in flight at once; queue.process with a batch's concurrency, each `done` called by our ack.

const kue = require('kue');
const { Rejected } = require('./errors');
const { wrap, unwrap, Settling } = require('./carrier');

const TYPE = 'message';
const STUCK_MS = 1000;
const SCAN_COUNT = 1000;

module.exports = async ({ url, prefix, batch }, arrived, fail) => {
  const at = new URL(url);
  const queue = kue.createQueue({
    prefix,
    jobEvents: false, // else every process hears of every job
    redis: {
      host: at.hostname,
      port: at.port,
      db: at.pathname.slice(1) || 0,
      auth: decodeURIComponent(at.password),
      options: { retry_strategy: () => undefined }, // else it would send again what was not answered
    },
  });
  queue.on('error', (error) => fail(`the connection to Redis ended: ${error.message}`));
  queue.client.on('end', () => fail('the connection to Redis ended'));
  const settling = new Settling();
  let isLeaving = false;
  const call = (on, name, ...args) =>
    new Promise((resolve, reject) => on[name](...args, (error, told) => (error ? reject(error) : resolve(told))));
  const count = (state) => call(queue, 'cardByType', TYPE, state);
  await call(queue.client, 'ping');

  async function put(bodies) {
    const saves = bodies.map((body) => call(queue.create(TYPE, wrap(body)).removeOnComplete(true), 'save'));
    const errors = (await Promise.allSettled(saves)).filter(({ status }) => status === 'rejected');
    if (errors.length === 0) return;
    const text = `${errors.length} of ${saves.length}: ${errors[0].reason.message}`;
    throw errors.length === saves.length ? new Rejected(text) : new Error(text);
  }

  function start() {
    queue.process(TYPE, batch, (job, done) => {
      if (isLeaving) job.inactive();
      else arrived(unwrap(job.data), { job, done });
    });
    for (const worker of queue.workers) worker.on('job complete', (job) => settling.settled(job.id));
    queue.watchStuckJobs(STUCK_MS); // a worker killed between two commands leaves a job that nobody is told of
  }

  // Kue forgets what it has popped and not handed over yet, so let it finish that, and put back what nobody has seen.
  async function close(unseen) {
    isLeaving = true;
    for (const worker of queue.workers) worker.running = false;
    while (queue.workers.some(({ job }) => job === true)) await new Promise(setImmediate);
    await Promise.all(unseen().map(({ job }) => call(job, 'inactive')));
    await call(queue.client, 'ping');
  }

  async function destroy() {
    let cursor = '0';
    do {
      const [next, keys] = await call(queue.client, 'scan', cursor, 'MATCH', `${prefix}:*`, 'COUNT', SCAN_COUNT);
      if (keys.length > 0) await call(queue.client, 'del', ...keys);
      cursor = next;
    } while (cursor !== '0');
  }

  return {
    facts: {},
    put,
    start,
    settle: (items) =>
      Promise.all(
        items.map(({ job, done }) => {
          const settled = settling.wait(job.id);
          done();
          return settled;
        }),
      ),
    depth: () => count('inactive'),
    async counts() {
      const states = ['inactive', 'active', 'complete', 'failed'];
      return Object.fromEntries(await Promise.all(states.map(async (state) => [state, await count(state)])));
    },
    destroy,
    close,
  };
};
