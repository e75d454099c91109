'use strict';
// BullMQ: addBulk; a Worker with a batch's concurrency, each job's promise resolved by our ack.

const { Queue, Worker } = require('bullmq');
const { wrap, unwrap, Settling } = require('./carrier');

module.exports = async ({ url, queue: name, batch, lease_ms: leaseMs }, arrived, fail) => {
  let lastError = null;
  // By itself ioredis would reconnect and send again what was not answered.
  const connection = {
    url,
    retryStrategy: () => null,
    maxRetriesPerRequest: null,
    autoResendUnfulfilledCommands: false,
  };
  const settings = { lockDuration: leaseMs, stalledInterval: leaseMs / 2, maxStalledCount: 2 ** 31 - 1 };
  const watch = (each) => {
    each.on('error', (error) => (lastError = error));
    each.on('ioredis:close', () => fail(`the connection to Redis ended${lastError ? `: ${lastError.message}` : ''}`));
    return each.waitUntilReady();
  };
  const queue = new Queue(name, { connection });
  await watch(queue);
  const settling = new Settling();

  return {
    facts: { ...settings, lockRenewTime: leaseMs / 2 },
    async put(bodies) {
      const opts = { removeOnComplete: true };
      // Not one transaction, and it tells its first error only: after that, the batch is uncertain.
      await queue.addBulk(bodies.map((body) => ({ name: 'message', data: wrap(body), opts })));
    },
    async start() {
      const handle = (job) =>
        new Promise((resolve) => arrived(unwrap(job.data), { id: job.id, resolve }));
      const worker = new Worker(name, handle, { connection, concurrency: batch, ...settings });
      worker.on('completed', (job) => settling.settled(job.id));
      worker.on('failed', (job, error) => settling.failed(job.id, error));
      worker.on('error', (error) => settling.lost(error));
      await watch(worker);
    },
    async settle(items) {
      await Promise.all(
        items.map(({ id, resolve }) => {
          const settled = settling.wait(id);
          resolve();
          return settled;
        }),
      );
    },
    depth: () => queue.getWaitingCount(),
    counts: () => queue.getJobCounts(),
    destroy: () => queue.obliterate({ force: true }),
  };
};
