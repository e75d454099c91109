'use strict';
// What Bull and BullMQ share: both hold a job by a lock, over ioredis.

// By itself ioredis would reconnect and send again what was not answered.
const LINK = { retryStrategy: () => null, maxRetriesPerRequest: null, autoResendUnfulfilledCommands: false };

// A job may stall for ever: by itself the library fails one that stalls twice.
const lockSettings = (leaseMs) => ({
  lockDuration: leaseMs,
  stalledInterval: leaseMs / 2,
  maxStalledCount: 2 ** 31 - 1,
});

// What is the same to both, on `this.queue` and `this.settling`, which the adapter makes.
class Locked {
  settle(items) {
    return this.settling.settle(items);
  }

  depth() {
    return this.queue.getWaitingCount();
  }

  counts() {
    return this.queue.getJobCounts();
  }

  destroy() {
    return this.queue.obliterate({ force: true });
  }
}

module.exports = { LINK, lockSettings, Locked };
