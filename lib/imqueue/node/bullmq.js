'use strict';
// BullMQ: addBulk; a Worker with a batch's concurrency, each job's promise resolved by our ack.

const { Queue, Worker, WaitingError } = require('bullmq');
const { wrap, unwrap } = require('./carrier');
const { LINK, lockSettings, Locked } = require('./locked');
const { Settling } = require('./settling');

class BullMQ extends Locked {
  constructor({ url, queue, batch, lease_ms: leaseMs }, child) {
    super();
    this.child = child;
    this.name = queue;
    this.batch = batch;
    this.lastError = null;
    this.connection = { url, ...LINK };
    this.settings = lockSettings(leaseMs);
    this.facts = { ...this.settings, lockRenewTime: leaseMs / 2 };
    this.queue = new Queue(queue, { connection: this.connection });
    this.worker = null;
    this.active = new Set(); // every item whose job's promise is open
    this.isLeaving = false;
    this.settling = new Settling(child.troubled);
  }

  watch(each) {
    each.on('error', (error) => (this.lastError = error));
    each.on('ioredis:close', () => {
      this.child.fail(`the connection to Redis ended${this.lastError ? `: ${this.lastError.message}` : ''}`);
    });
    return each.waitUntilReady();
  }

  async put(bodies) {
    const opts = { removeOnComplete: true };
    // Not one transaction, and it tells its first error only: after that, the batch is uncertain.
    await this.queue.addBulk(bodies.map((body) => ({ name: 'message', data: wrap(body), opts })));
  }

  async start() {
    const options = { connection: this.connection, concurrency: this.batch, ...this.settings };
    const worker = new Worker(this.name, (job, token) => this.handle(job, token), options);
    worker.on('completed', (job) => this.settling.settled(job.id));
    worker.on('failed', (job, error) => this.settling.failed(job.id, error));
    worker.on('error', (error) => this.settling.error(error));
    this.worker = worker;
    await this.watch(worker);
  }

  handle(job, token) {
    return new Promise((resolve, reject) => {
      const item = { id: job.id, finish, leave: () => reject(new WaitingError()), putBack };
      const { active } = this;
      function finish() {
        active.delete(item);
        resolve();
      }
      async function putBack() {
        active.delete(item);
        await job.moveToWait(token).catch(() => {}); // its lock was lost: it is another holder's
        item.leave();
      }
      active.add(item);
      if (this.isLeaving) putBack();
      else this.child.arrived(unwrap(job.data), item);
    });
  }

  // BullMQ's own way: the Worker closes when no job's promise is open, and WaitingError says that the job is not the
  // Worker's any more. What nobody has seen goes back first; what is held is left to the end of its lock.
  async close(unseen) {
    if (this.worker === null) return;
    this.isLeaving = true;
    const closed = this.worker.close();
    unseen().forEach((item) => item.putBack());
    this.active.forEach((item) => item.leave());
    await closed;
  }
}

module.exports = async (config, child) => {
  const bullmq = new BullMQ(config, child);
  await bullmq.watch(bullmq.queue);
  return bullmq;
};
