'use strict';
// rabbit.js: a PUSH socket, then a question on its channel that the broker answers after what was pushed; a WORKER
// socket with a prefetch. It acks in order only, so a batch is settled as a whole.

const rabbit = require('rabbit.js');

async function connect(url, { fail }) {
  const context = rabbit.createContext(url, { noDelay: true });
  let lastError = null;
  context.on('error', (error) => {
    lastError = error;
    fail(`no link to RabbitMQ: ${error.message}`);
  });
  context.on('close', () => fail(`RabbitMQ closed the link${lastError ? `: ${lastError.message}` : ''}`));
  await new Promise((resolve) => context.on('ready', resolve));
  return context;
}

class RabbitJS {
  constructor({ queue, batch }, child, context) {
    Object.assign(this, { queue, batch, child, context });
    this.facts = {};
    this.push = null;
    this.worker = null;
  }

  async joined(socket) {
    socket.on('error', this.child.fail);
    await new Promise((resolve) => socket.connect(this.queue, resolve));
    return socket;
  }

  // `persistent` makes the queue durable, which newer brokers insist on; the messages are not.
  async open() {
    this.push = await this.joined(this.context.socket('PUSH', { persistent: true }));
    this.push.setsockopt('persistent', false);
  }

  async put(bodies) {
    for (const body of bodies) this.push.write(body);
    await this.counts();
  }

  async start() {
    this.worker = this.context.socket('WORKER', { prefetch: Math.min(this.batch, 65535), persistent: true });
    this.worker.on('data', (body) => this.child.arrived(body, null));
    await this.joined(this.worker);
  }

  settle(items) {
    items.forEach(() => this.worker.ack());
  }

  async depth() {
    return (await this.counts()).messageCount;
  }

  counts() {
    return this.push.ch.checkQueue(this.queue);
  }

  destroy() {
    return this.push.ch.deleteQueue(this.queue);
  }

  close() {
    return new Promise((resolve) => this.context.close(resolve));
  }
}

module.exports = async (config, child) => {
  const adapter = new RabbitJS(config, child, await connect(config.url, child));
  await adapter.open();
  return adapter;
};
