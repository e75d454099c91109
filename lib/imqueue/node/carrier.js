'use strict';
// What the libraries that carry JSON or strings need to move bytes unchanged.

// In JSON a byte below 32 takes six characters, so base64 is shorter for anything but text: {"body": "<base64>"}.
const wrap = (body) => ({ body: body.toString('base64') });

// A job that somebody else put into the queue comes out as the JSON of its data.
const unwrap = (data) =>
  data && typeof data.body === 'string' ? Buffer.from(data.body, 'base64') : Buffer.from(JSON.stringify(data));

// Who waits for which job to be settled. A job whose lock was lost is another holder's: there is nothing to settle.
class Settling {
  constructor() {
    this.jobs = new Map();
  }

  wait(id) {
    return new Promise((resolve, reject) => this.jobs.set(String(id), { resolve, reject }));
  }

  settled(id) {
    this.end(id, (waiter) => waiter.resolve());
  }

  failed(id, error) {
    this.end(id, (waiter) => waiter.reject(error));
  }

  lost(error) {
    const found = /Missing (?:lock|key) for job ([^\s.]+)/.exec(error.message);
    if (found) this.settled(found[1]);
    return found !== null;
  }

  end(id, how) {
    const waiter = this.jobs.get(String(id));
    this.jobs.delete(String(id));
    if (waiter) how(waiter);
  }
}

module.exports = { wrap, unwrap, Settling };
