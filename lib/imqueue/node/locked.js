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

module.exports = { LINK, lockSettings };
