'use strict';

// The lock was lost or the job is gone: another holder has it, or has settled it.
const LOST = /(?:Missing (?:lock|key)|Lock mismatch) for job (\S+?)\.?(?: |$)|^Job (\S+) is not in the \S+ state/;
const NOT_RENEWED = /^could not renew lock for job /; // BullMQ says it early; an ack finds out

// Who waits for which job to be settled. A late ack settles nothing of the next holder's and is no error.
class Settling {
  constructor(troubled) {
    this.troubled = troubled;
    this.waiters = new Map(); // id -> those who wait: a job that came back to its own handle is held twice
  }

  // Calls each item's `finish` and waits until the library has told what became of its job. `reason` tells what went
  // wrong at first, where the library's error is only about what it tried next.
  settle(items) {
    return Promise.all(
      items.map(({ id, finish, reason }) => {
        const settled = this.wait(String(id), reason);
        finish();
        return settled;
      }),
    );
  }

  wait(id, reason) {
    return new Promise((resolve, reject) => {
      const waiter = { resolve, reject, reason };
      const others = this.waiters.get(id);
      if (others) others.push(waiter);
      else this.waiters.set(id, [waiter]);
    });
  }

  settled(id) {
    this.end(String(id), ({ resolve }) => resolve());
  }

  failed(id, error) {
    this.end(String(id), ({ reject }) => reject(error));
  }

  lost(id) {
    this.end(id, ({ resolve, reject, reason }) => {
      const first = reason && reason();
      if (first && !LOST.test(first)) reject(new Error(first));
      else resolve();
    });
  }

  // The library emits an error and does not always say for which job. An ack must not wait for ever for an answer that
  // is not coming, so one that names no job ends all who wait; where nobody does, it is news for the next get.
  error(error) {
    const found = LOST.exec(error.message);
    if (found) this.lost(found[1] || found[2]);
    else if (NOT_RENEWED.test(error.message)) return;
    else if (this.waiters.size === 0) this.troubled(error);
    else for (const id of [...this.waiters.keys()]) this.failed(id, error);
  }

  end(id, how) {
    const waiters = this.waiters.get(id);
    if (waiters === undefined) return;
    this.waiters.delete(id);
    waiters.forEach(how);
  }
}

module.exports = { Settling };
