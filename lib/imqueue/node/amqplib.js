'use strict';
// amqplib: a confirm channel, a batch of publications and then their confirms; a consumer with a prefetch, multiple ack.

const amqp = require('amqplib');
const { Rejected } = require('./errors');

module.exports = async ({ url, queue, batch, persistent, arguments: args }, arrived, fail) => {
  const connection = await amqp.connect(url, { noDelay: true });
  let lastError = null;
  let blocked = null;
  connection.on('error', (error) => (lastError = error));
  connection.on('close', () => fail(`RabbitMQ closed the link${lastError ? `: ${lastError.message}` : ''}`));
  connection.on('blocked', (reason) => (blocked = reason));
  connection.on('unblocked', () => (blocked = null));
  const channel = await connection.createConfirmChannel();
  let returned = 0;
  let isDropped = false; // by us: that our own consumer is cancelled then is no news
  channel.on('error', fail);
  channel.on('close', () => fail('RabbitMQ closed the channel'));
  channel.on('return', () => (returned += 1));
  await channel.assertQueue(queue, { durable: true, arguments: args });
  // The broker's log says "committed" of a queue only when the next change flushes it.
  await channel.bindQueue(queue, 'amq.direct', queue);

  function publish(bodies) {
    return new Promise((resolve) => {
      let missing = bodies.length;
      let refused = 0;
      const confirmed = (error) => {
        if (error) refused += 1;
        if (--missing === 0) resolve(refused);
      };
      for (const body of bodies) channel.sendToQueue(queue, body, { persistent, mandatory: true }, confirmed);
    });
  }

  return {
    facts: {},
    async put(bodies) {
      if (blocked !== null) throw new Rejected(`nothing was sent: RabbitMQ has blocked publishers: ${blocked}`);
      const before = returned;
      const refused = await publish(bodies);
      const lost = refused + returned - before;
      const text = `of ${bodies.length} messages RabbitMQ refused ${refused} and had no queue for ${returned - before}`;
      if (lost === bodies.length) throw new Rejected(text);
      if (lost > 0) throw new Error(text);
    },
    async start() {
      await channel.prefetch(Math.min(batch, 65535));
      await channel.consume(queue, (message) => {
        if (message !== null) arrived(message.content, message);
        else if (!isDropped) fail('RabbitMQ cancelled the consumer: the queue was deleted');
      });
    },
    settle(messages, upTo) {
      if (!upTo) return messages.forEach((message) => channel.ack(message));
      const last = messages.reduce((a, b) => (a.fields.deliveryTag > b.fields.deliveryTag ? a : b));
      return channel.ack(last, true);
    },
    depth: async () => (await channel.checkQueue(queue)).messageCount,
    counts: () => channel.checkQueue(queue),
    destroy() {
      isDropped = true;
      return channel.deleteQueue(queue);
    },
    close: () => connection.close(),
  };
};
