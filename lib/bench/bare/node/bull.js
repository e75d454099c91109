'use strict';

const Queue = require('bull');

exports.producer = async ({ url, queue: name }) => {
  const queue = new Queue(name, url);
  await queue.isReady();
  const opts = { removeOnComplete: true };
  return (bodies) => queue.addBulk(bodies.map((body) => ({ data: { body: body.toString('base64') }, opts })));
};

exports.consumer = async ({ url, queue: name, batch }, settled) => {
  const queue = new Queue(name, url);
  queue.on('completed', () => settled(1));
  queue.process('*', batch, async (job) => void Buffer.from(job.data.body, 'base64'));
};
