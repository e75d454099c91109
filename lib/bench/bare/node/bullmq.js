'use strict';

const { Queue, Worker } = require('bullmq');

exports.producer = async ({ url, queue: name }) => {
  const queue = new Queue(name, { connection: { url } });
  await queue.waitUntilReady();
  const opts = { removeOnComplete: true };
  return (bodies) =>
    queue.addBulk(bodies.map((body) => ({ name: 'message', data: { body: body.toString('base64') }, opts })));
};

exports.consumer = async ({ url, queue: name, batch }, settled) => {
  const handle = async (job) => void Buffer.from(job.data.body, 'base64');
  const connection = { url, maxRetriesPerRequest: null };
  const worker = new Worker(name, handle, { connection, concurrency: batch });
  worker.on('completed', () => settled(1));
  await worker.waitUntilReady();
};
