'use strict';

const rabbit = require('rabbit.js');

const open = ({ url }) =>
  new Promise((resolve) => {
    const context = rabbit.createContext(url, { noDelay: true });
    context.on('ready', () => resolve(context));
  });
const connect = (socket, queue) => new Promise((resolve) => socket.connect(queue, () => resolve(socket)));

exports.producer = async (job) => {
  const push = await connect((await open(job)).socket('PUSH', { persistent: true }), job.queue);
  push.setsockopt('persistent', false);
  return async (bodies) => {
    for (const body of bodies) push.write(body);
    await push.ch.checkQueue(job.queue);
  };
};

exports.consumer = async (job, settled) => {
  const worker = (await open(job)).socket('WORKER', { persistent: true, prefetch: job.batch });
  worker.on('data', () => {
    worker.ack();
    settled(1);
  });
  await connect(worker, job.queue);
};
