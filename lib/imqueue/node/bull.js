'use strict';
// Bull: addBulk; queue.process with a batch's concurrency, each job's promise resolved by our ack.

const Queue = require('bull');
const Redis = require('ioredis');
const { Rejected } = require('./errors');
const { wrap, unwrap, Settling } = require('./carrier');

module.exports = async ({ url, queue: name, batch, lease_ms: leaseMs }, arrived, fail) => {
  let lastError = null;
  // By itself ioredis would reconnect and send again what was not answered.
  const createClient = (_kind, options) => {
    const client = new Redis({
      ...options,
      retryStrategy: () => null,
      maxRetriesPerRequest: null,
      enableReadyCheck: false,
      autoResendUnfulfilledCommands: false,
    });
    client.on('error', (error) => (lastError = error));
    client.on('end', () => fail(`the connection to Redis ended${lastError ? `: ${lastError.message}` : ''}`));
    return client;
  };
  const settings = { lockDuration: leaseMs, stalledInterval: leaseMs / 2, maxStalledCount: 2 ** 31 - 1 };
  const queue = new Queue(name, url, { createClient, settings });
  const settling = new Settling();
  queue.on('completed', (job) => settling.settled(job.id));
  queue.on('failed', (job, error) => settling.failed(job.id, error));
  queue.on('error', (error) => settling.lost(error));
  await queue.isReady();

  return {
    facts: { ...settings, lockRenewTime: queue.settings.lockRenewTime },
    async put(bodies) {
      const opts = { removeOnComplete: true };
      const jobs = await queue.addBulk(bodies.map((body) => ({ data: wrap(body), opts }))).catch((error) => {
        throw /^EXECABORT/.test(error.message) ? new Rejected(error.message) : error; // one transaction
      });
      const refused = jobs.filter((job) => job.id === undefined).length; // Bull keeps the reason to itself
      if (refused === jobs.length) throw new Rejected(`Redis refused all ${refused} jobs`);
      if (refused > 0) throw new Error(`Redis refused ${refused} of ${jobs.length} jobs`);
    },
    start() {
      const handle = (job) =>
        new Promise((resolve) => arrived(unwrap(job.data), { id: job.id, resolve }));
      queue.process('*', batch, handle).catch(fail);
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
