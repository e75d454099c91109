'use strict';
// RSMQ: sendMessage, receiveMessage and deleteMessage, a batch of each in flight at once. It cannot wait: child.js polls.

const RSMQ = require('rsmq');
const { Rejected } = require('./errors');

const GONE = 'queueNotFound';

// RSMQ carries strings. Latin-1 gives each byte one character, and its limit counts characters.
const CARRIER = 'latin1';

module.exports = async ({ url, queue: qname, lease_ms: leaseMs, size_max_bytes: maxsize }, _arrived, fail) => {
  const rsmq = new RSMQ({ url, retry_strategy: () => undefined }); // else it would send again what was not answered
  rsmq.redis.on('error', (error) => fail(`the connection to Redis ended: ${error.message}`));
  rsmq.redis.on('end', () => fail('the connection to Redis ended'));
  const vt = Math.max(1, Math.ceil(leaseMs / 1000)); // RSMQ counts whole seconds
  const made = await rsmq.createQueueAsync({ qname, vt, maxsize }).catch((error) => error);
  if (made !== 1 && made.name !== 'queueExists') throw made;

  const all = async (count, call) => {
    const results = await Promise.allSettled(Array.from({ length: count }, (_, index) => call(index)));
    const errors = results.filter(({ status }) => status === 'rejected');
    if (errors.length === 0) return results.map(({ value }) => value);
    const text = `${errors.length} of ${count}: ${errors[0].reason.message}`;
    throw errors.length === count ? new Rejected(text) : new Error(text);
  };

  // One, then one more, then twice as many each time: a nearly empty queue is not asked a whole batch's worth.
  async function take(most) {
    const taken = [];
    for (let ask = 1; taken.length < most; ask = Math.min(Math.max(1, taken.length), most - taken.length)) {
      const found = (await all(ask, () => rsmq.receiveMessageAsync({ qname, vt }))).filter(({ id }) => id);
      taken.push(...found.map(({ id, message }) => [Buffer.from(message, CARRIER), id]));
      if (found.length < ask) break;
    }
    return taken;
  }

  const redis = (command, ...args) =>
    new Promise((resolve, reject) => rsmq.redis[command](...args, (error, told) => (error ? reject(error) : resolve(told))));

  return {
    facts: { vt, maxsize },
    put: (bodies) => all(bodies.length, (index) => rsmq.sendMessageAsync({ qname, message: bodies[index].toString(CARRIER) })),
    take,
    settle: (ids) => all(ids.length, (index) => rsmq.deleteMessageAsync({ qname, id: ids[index] })),
    // Not its own count of hidden messages: that takes what was sent within the current second for hidden.
    async depth() {
      const [seconds, micros] = await redis('time');
      return redis('zcount', `rsmq:${qname}`, '-inf', 1000 * seconds + Math.floor(micros / 1000));
    },
    counts: () => rsmq.getQueueAttributesAsync({ qname }),
    async destroy() {
      await rsmq.deleteQueueAsync({ qname }).catch((error) => {
        if (error.name !== GONE) throw error;
      });
    },
  };
};
