'use strict';
// amqplib: a confirm channel, a batch of publications and then their confirms; a consumer with a prefetch, multiple ack.

const amqp = require('amqplib');
const { Rejected } = require('./errors');

async function connect(url, { fail }) {
  const connection = await amqp.connect(url, { noDelay: true });
  let lastError = null;
  connection.on('error', (error) => (lastError = error));
  connection.on('close', () => fail(`RabbitMQ closed the link${lastError ? `: ${lastError.message}` : ''}`));
  return connection;
}

async function openChannel(connection, { fail }) {
  const channel = await connection.createConfirmChannel();
  channel.on('error', fail);
  channel.on('close', () => fail('RabbitMQ closed the channel'));
  return channel;
}

class Amqplib {
  constructor({ queue, batch, persistent }, child, connection, channel) {
    Object.assign(this, { queue, batch, persistent, child, connection, channel });
    this.facts = {};
    this.isDropped = false; // by us: that our own consumer is cancelled then is no news
    this.blocked = null;
    this.returned = 0;
    connection.on('blocked', (reason) => (this.blocked = reason));
    connection.on('unblocked', () => (this.blocked = null));
    channel.on('return', () => (this.returned += 1));
  }

  async create(args) {
    await this.channel.assertQueue(this.queue, { durable: true, arguments: args });
    // The broker's log says "committed" of a queue only when the next change flushes it.
    await this.channel.bindQueue(this.queue, 'amq.direct', this.queue);
  }

  async put(bodies) {
    if (this.blocked !== null) {
      throw new Rejected(`nothing was sent: RabbitMQ has blocked publishers: ${this.blocked}`);
    }
    const before = this.returned;
    const refused = await this.publish(bodies);
    const returned = this.returned - before;
    const text = `of ${bodies.length} messages RabbitMQ refused ${refused} and had no queue for ${returned}`;
    if (refused + returned === bodies.length) throw new Rejected(text);
    if (refused + returned > 0) throw new Error(text);
  }

  publish(bodies) {
    const options = { persistent: this.persistent, mandatory: true };
    return new Promise((resolve) => {
      let missing = bodies.length;
      let refused = 0;
      const confirmed = (error) => {
        if (error) refused += 1;
        if (--missing === 0) resolve(refused);
      };
      for (const body of bodies) this.channel.sendToQueue(this.queue, body, options, confirmed);
    });
  }

  async start() {
    await this.channel.prefetch(Math.min(this.batch, 65535));
    await this.channel.consume(this.queue, (message) => {
      if (message !== null) this.child.arrived(message.content, message);
      else if (!this.isDropped) this.child.fail('RabbitMQ cancelled the consumer: the queue was deleted');
    });
  }

  settle(messages, upTo) {
    if (!upTo) return messages.forEach((message) => this.channel.ack(message));
    const last = messages.reduce((a, b) => (a.fields.deliveryTag > b.fields.deliveryTag ? a : b));
    return this.channel.ack(last, true);
  }

  async depth() {
    return (await this.counts()).messageCount;
  }

  counts() {
    return this.channel.checkQueue(this.queue);
  }

  destroy() {
    this.isDropped = true;
    return this.channel.deleteQueue(this.queue);
  }

  close() {
    return this.connection.close();
  }
}

module.exports = async (config, child) => {
  const connection = await connect(config.url, child);
  const adapter = new Amqplib(config, child, connection, await openChannel(connection, child));
  await adapter.create(config.arguments);
  return adapter;
};
