'use strict';
// rabbit.js: a PUSH socket, then a question on its channel that the broker answers after what was pushed; a WORKER
// socket with a prefetch. It acks in order only, so a batch is settled as a whole.

const rabbit = require('rabbit.js');

module.exports = async ({ url, queue, batch }, arrived, fail) => {
  const context = rabbit.createContext(url, { noDelay: true });
  let lastError = null;
  context.on('error', (error) => {
    lastError = error;
    fail(`no link to RabbitMQ: ${error.message}`);
  });
  context.on('close', () => fail(`RabbitMQ closed the link${lastError ? `: ${lastError.message}` : ''}`));
  await new Promise((resolve) => context.on('ready', resolve));
  const connected = async (socket) => {
    socket.on('error', fail);
    await new Promise((resolve) => socket.connect(queue, resolve));
    return socket;
  };
  // `persistent` makes the queue durable, which newer brokers insist on; the messages are not.
  const push = await connected(context.socket('PUSH', { persistent: true }));
  push.setsockopt('persistent', false);
  const check = () => push.ch.checkQueue(queue);
  let worker = null;

  return {
    facts: {},
    async put(bodies) {
      for (const body of bodies) push.write(body);
      await check();
    },
    async start() {
      worker = context.socket('WORKER', { prefetch: Math.min(batch, 65535), persistent: true });
      worker.on('data', (body) => arrived(body, null));
      await connected(worker);
    },
    settle: (items) => items.forEach(() => worker.ack()),
    depth: async () => (await check()).messageCount,
    counts: check,
    destroy: () => push.ch.deleteQueue(queue),
    close: () => new Promise((resolve) => context.close(resolve)),
  };
};
