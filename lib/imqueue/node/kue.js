'use strict';
// Kue: a batch of job.save in flight at once; queue.process with a batch's concurrency, each `done` called by our ack.

const kue = require('kue');
const { Rejected } = require('./errors');
const { wrap, unwrap } = require('./carrier');
const { Settling } = require('./settling');

const TYPE = 'message';
const STATES = ['inactive', 'active', 'complete', 'failed'];
const STUCK_MS = 1000;
const SCAN_COUNT = 1000;

const call = (on, name, ...args) =>
  new Promise((resolve, reject) => on[name](...args, (error, told) => (error ? reject(error) : resolve(told))));

function createQueue(url, prefix) {
  const at = new URL(url);
  return kue.createQueue({
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
}

class Kue {
  constructor({ url, prefix, batch }, child) {
    this.child = child;
    this.prefix = prefix;
    this.batch = batch;
    this.facts = {};
    this.isLeaving = false;
    this.settling = new Settling(child.troubled);
    this.queue = createQueue(url, prefix);
    this.queue.on('error', (error) => child.fail(`the connection to Redis ended: ${error.message}`));
    this.queue.client.on('end', () => child.fail('the connection to Redis ended'));
  }

  async put(bodies) {
    const saves = bodies.map((body) => call(this.queue.create(TYPE, wrap(body)).removeOnComplete(true), 'save'));
    const errors = (await Promise.allSettled(saves)).filter(({ status }) => status === 'rejected');
    if (errors.length === 0) return;
    const text = `${errors.length} of ${saves.length}: ${errors[0].reason.message}`;
    throw errors.length === saves.length ? new Rejected(text) : new Error(text);
  }

  start() {
    this.queue.process(TYPE, this.batch, (job, done) => {
      if (this.isLeaving) job.inactive();
      else this.child.arrived(unwrap(job.data), { id: job.id, job: this.tellOfErrors(job), finish: done });
    });
    for (const worker of this.queue.workers) worker.on('job complete', (job) => this.settling.settled(job.id));
    this.queue.watchStuckJobs(STUCK_MS); // a worker killed between two commands leaves a job that nobody is told of
  }

  // Kue's worker does not look at the error of job.complete: it would remove the job and call it completed.
  tellOfErrors(job) {
    const complete = job.complete.bind(job);
    job.complete = (then) =>
      complete((error) => {
        if (error) {
          job.removeOnComplete(false);
          this.settling.failed(job.id, error);
        }
        then(error);
      });
    return job;
  }

  settle(items) {
    return this.settling.settle(items);
  }

  count(state) {
    return call(this.queue, 'cardByType', TYPE, state);
  }

  depth() {
    return this.count('inactive');
  }

  async counts() {
    return Object.fromEntries(await Promise.all(STATES.map(async (state) => [state, await this.count(state)])));
  }

  // Kue forgets what it has popped and not handed over yet, so let it finish that, and put back what nobody has seen.
  async close(unseen) {
    this.isLeaving = true;
    for (const worker of this.queue.workers) worker.running = false;
    while (this.queue.workers.some(({ job }) => job === true)) await new Promise(setImmediate);
    await Promise.all(unseen().map(({ job }) => call(job, 'inactive')));
    await call(this.queue.client, 'ping');
  }

  async destroy() {
    const { client } = this.queue;
    let cursor = '0';
    do {
      const [next, keys] = await call(client, 'scan', cursor, 'MATCH', `${this.prefix}:*`, 'COUNT', SCAN_COUNT);
      if (keys.length > 0) await call(client, 'del', ...keys);
      cursor = next;
    } while (cursor !== '0');
  }
}

module.exports = async (config, child) => {
  const adapter = new Kue(config, child);
  await call(adapter.queue.client, 'ping');
  return adapter;
};
