'use strict';
// RSMQ: sendMessage, receiveMessage and deleteMessage, a batch of each in flight at once. It cannot wait: child.js polls.

const RSMQ = require('rsmq');
const { Rejected } = require('./errors');

const GONE = 'queueNotFound';

// RSMQ carries strings. Latin-1 gives each byte one character, and its limit counts characters.
const CARRIER = 'latin1';

// `count` calls in flight at once, and their results once all have ended.
async function all(count, call) {
  const results = await Promise.allSettled(Array.from({ length: count }, (_, index) => call(index)));
  const errors = results.filter(({ status }) => status === 'rejected');
  if (errors.length === 0) return results.map(({ value }) => value);
  const text = `${errors.length} of ${count}: ${errors[0].reason.message}`;
  throw errors.length === count ? new Rejected(text) : new Error(text);
}

class Adapter {
  constructor({ url, queue: qname, lease_ms: leaseMs, size_max_bytes: maxsize }, { fail }) {
    this.rsmq = new RSMQ({ url, retry_strategy: () => undefined }); // else it would send again what was not answered
    this.rsmq.redis.on('error', (error) => fail(`the connection to Redis ended: ${error.message}`));
    this.rsmq.redis.on('end', () => fail('the connection to Redis ended'));
    this.qname = qname;
    this.vt = Math.max(1, Math.ceil(leaseMs / 1000)); // RSMQ counts whole seconds
    this.facts = { vt: this.vt, maxsize };
  }

  async create() {
    const made = await this.rsmq.createQueueAsync({ qname: this.qname, ...this.facts }).catch((error) => error);
    if (made !== 1 && made.name !== 'queueExists') throw made;
  }

  put(bodies) {
    const { qname } = this;
    return all(bodies.length, (index) => this.rsmq.sendMessageAsync({ qname, message: bodies[index].toString(CARRIER) }));
  }

  // One, then one more, then twice as many each time: a nearly empty queue is not asked a whole batch's worth.
  async take(most) {
    const { qname, vt } = this;
    const taken = [];
    for (let ask = 1; taken.length < most; ask = Math.min(Math.max(1, taken.length), most - taken.length)) {
      const found = (await all(ask, () => this.rsmq.receiveMessageAsync({ qname, vt }))).filter(({ id }) => id);
      taken.push(...found.map(({ id, message }) => [Buffer.from(message, CARRIER), id]));
      if (found.length < ask) break;
    }
    return taken;
  }

  settle(ids) {
    return all(ids.length, (index) => this.rsmq.deleteMessageAsync({ qname: this.qname, id: ids[index] }));
  }

  redis(command, ...args) {
    return new Promise((resolve, reject) => {
      this.rsmq.redis[command](...args, (error, told) => (error ? reject(error) : resolve(told)));
    });
  }

  // Not its own count of hidden messages: that takes what was sent within the current second for hidden.
  async depth() {
    const [seconds, micros] = await this.redis('time');
    return this.redis('zcount', `rsmq:${this.qname}`, '-inf', 1000 * seconds + Math.floor(micros / 1000));
  }

  counts() {
    return this.rsmq.getQueueAttributesAsync({ qname: this.qname });
  }

  async destroy() {
    await this.rsmq.deleteQueueAsync({ qname: this.qname }).catch((error) => {
      if (error.name !== GONE) throw error;
    });
  }
}

module.exports = async (config, child) => {
  const adapter = new Adapter(config, child);
  await adapter.create();
  return adapter;
};
