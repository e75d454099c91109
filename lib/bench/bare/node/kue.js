'use strict';

const kue = require('kue');

const open = ({ url, queue }) => kue.createQueue({ prefix: queue, redis: url, jobEvents: false });

exports.producer = async (job) => {
  const queue = open(job);
  const save = (body) =>
    new Promise((resolve, reject) =>
      queue
        .create('message', { body: body.toString('base64') })
        .removeOnComplete(true)
        .save((error) => (error ? reject(error) : resolve())),
    );
  return (bodies) => Promise.all(bodies.map(save));
};

exports.consumer = async (job, settled) => {
  const queue = open(job);
  queue.process('message', job.batch, (each, done) => {
    Buffer.from(each.data.body, 'base64');
    done();
  });
  for (const worker of queue.workers) worker.on('job complete', () => settled(1));
  queue.watchStuckJobs(1000);
};
