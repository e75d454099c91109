'use strict';

const amqp = require('amqplib');

const INDEX = { delayed: 2, flushed: 1 };

const open = async ({ url, queue, durability }) => {
  const channel = await (await amqp.connect(url, { noDelay: true })).createConfirmChannel();
  const version = INDEX[durability];
  await channel.assertQueue(queue, { durable: true, arguments: version ? { 'x-queue-version': version } : {} });
  return channel;
};

exports.producer = async (job) => {
  const channel = await open(job);
  const options = { persistent: job.durability !== 'memory', mandatory: true };
  return async (bodies) => {
    for (const body of bodies) channel.sendToQueue(job.queue, body, options);
    await channel.waitForConfirms();
  };
};

exports.consumer = async (job, settled) => {
  const channel = await open(job);
  let last = null;
  let unacked = 0;
  const ackAll = () => {
    channel.ack(last, true);
    settled(unacked);
    unacked = 0;
  };
  await channel.prefetch(job.batch);
  await channel.consume(job.queue, (message) => {
    last = message;
    unacked += 1;
    if (unacked === 1) setImmediate(ackAll); // one ack for all that came in the same read
  });
};
