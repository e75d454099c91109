'use strict';

const RSMQ = require('rsmq');

const POLL_MS = 1;

exports.create = async ({ url, queue: qname }) => {
  const rsmq = new RSMQ({ url });
  await rsmq.createQueueAsync({ qname });
  await rsmq.quitAsync();
};

exports.producer = async ({ url, queue: qname }) => {
  const rsmq = new RSMQ({ url });
  return (bodies) =>
    Promise.all(bodies.map((body) => rsmq.sendMessageAsync({ qname, message: body.toString('latin1') })));
};

exports.consumer = async ({ url, queue: qname, batch }, settled) => {
  const rsmq = new RSMQ({ url });
  const one = async () => {
    const { id, message } = await rsmq.receiveMessageAsync({ qname });
    if (!id) return false;
    Buffer.from(message, 'latin1');
    await rsmq.deleteMessageAsync({ qname, id });
    settled(1);
    return true;
  };
  const loop = async () => {
    for (;;) if (!(await one())) await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  };
  for (let index = 0; index < batch; index++) loop();
};
