'use strict';
// Bull: addBulk; queue.process with a batch's concurrency, each job's promise resolved by our ack.

const Queue = require('bull');
const Redis = require('ioredis');
const { Rejected } = require('./errors');
const { wrap, unwrap } = require('./carrier');
const { LINK, lockSettings, Locked } = require('./locked');
const { Settling } = require('./settling');

class Bull extends Locked {
  constructor({ url, queue, batch, lease_ms: leaseMs }, child) {
    super();
    this.child = child;
    this.batch = batch;
    this.lastError = null;
    this.clients = {};
    this.late = null; // jobs that arrive while we leave
    const settings = lockSettings(leaseMs);
    const createClient = (kind, options) => this.connect(kind, options);
    this.queue = new Queue(queue, url, { createClient, settings });
    this.facts = { ...settings, lockRenewTime: this.queue.settings.lockRenewTime };
    this.settling = new Settling(child.troubled);
    this.queue.on('completed', (job) => this.settling.settled(job.id));
    this.queue.on('failed', (job, error) => this.settling.failed(job.id, error));
    this.queue.on('error', (error) => this.settling.error(error));
  }

  connect(kind, options) {
    const client = new Redis({ ...options, ...LINK, enableReadyCheck: false });
    client.on('error', (error) => (this.lastError = error));
    client.on('end', () => {
      this.child.fail(`the connection to Redis ended${this.lastError ? `: ${this.lastError.message}` : ''}`);
    });
    this.clients[kind] = client;
    return client;
  }

  async put(bodies) {
    const opts = { removeOnComplete: true };
    const jobs = await this.queue.addBulk(bodies.map((body) => ({ data: wrap(body), opts }))).catch((error) => {
      throw /^EXECABORT/.test(error.message) ? new Rejected(error.message) : error; // one transaction
    });
    const refused = jobs.filter((job) => job.id === undefined).length; // Bull keeps the reason to itself
    if (refused === jobs.length) throw new Rejected(`Redis refused all ${refused} jobs`);
    if (refused > 0) throw new Error(`Redis refused ${refused} of ${jobs.length} jobs`);
  }

  start() {
    this.queue.process('*', this.batch, (job) => this.handle(job)).catch(this.child.fail);
  }

  handle(job) {
    if (isGone(job)) return Promise.resolve();
    return new Promise((finish) => {
      const reason = () => job.failedReason;
      if (this.late === null) this.child.arrived(unwrap(job.data), { id: job.id, job, finish, reason });
      else this.late.push(job);
    });
  }

  // Nothing more is popped once the blocking connection has ended; what was popped is handed over before Redis answers
  // the ping. Then all that nobody has seen goes back.
  async close(unseen) {
    const { client, bclient } = this.clients;
    if (bclient === undefined) return;
    this.late = [];
    const ended = new Promise((resolve) => bclient.once('end', resolve));
    bclient.disconnect();
    await ended;
    await new Promise(setImmediate);
    await client.ping();
    await new Promise(setImmediate);
    await Promise.all([...unseen().map(({ job }) => job), ...this.late].map(putBack));
  }
}

// Redis may have handed a job to us while we were stopped, and somebody else has settled it since. Bull makes an empty
// job of that; let it be removed.
function isGone(job) {
  if (!Number.isNaN(job.timestamp)) return false;
  job.opts.removeOnComplete = true;
  return true;
}

// Bull moves a job straight from active to waiting only as a failed attempt, which it would count. If we die between
// these two commands, the next worker promotes it.
async function putBack(job) {
  await job.moveToDelayed(Date.now());
  await job.promote().catch((error) => {
    if (!/not in a delayed state/.test(error.message)) throw error; // a worker was faster
  });
}

module.exports = async (config, child) => {
  const bull = new Bull(config, child);
  await bull.queue.isReady();
  return bull;
};
