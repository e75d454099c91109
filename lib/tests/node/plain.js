'use strict';
// What a user of the plain npm library would write, none of it ours: put, take or count, as the JSON on standard input
// says. A body travels as our adapters' docs say: base64 in `body` where jobs carry JSON, Latin-1 in RSMQ, bytes in AMQP.

const text = (body) => Buffer.from(body, 'base64').toString('latin1');
const base64 = (message) => Buffer.from(message, 'latin1').toString('base64');

// Resolves to what `each` was called with, once that is `count` long.
const gather = (count, start) =>
  new Promise((resolve, reject) => {
    const taken = [];
    start((body) => {
      taken.push(body);
      if (taken.length === count) setTimeout(() => resolve(taken), 200); // the last one may still be on its way to done
    }, reject);
  });

const kue = ({ url, prefix }) => require('kue').createQueue({ redis: url, prefix, jobEvents: false });
const rsmq = ({ url }) => new (require('rsmq'))({ url });
const connect = async ({ url }) => (await require('amqplib').connect(url)).createConfirmChannel();
const rabbit = ({ url }, kind, queue) =>
  new Promise((resolve) => {
    const context = require('rabbit.js').createContext(url);
    const socket = context.socket(kind, { persistent: true, prefetch: 10 });
    socket.connect(queue, () => resolve(socket));
  });

const LIBRARIES = {
  bull: {
    put: async ({ url, queue, bodies }) => {
      const bull = new (require('bull'))(queue, url);
      for (const body of bodies) await bull.add({ body });
    },
    take: ({ url, queue, count }) =>
      gather(count, (take) => {
        new (require('bull'))(queue, url).process(async (job) => take(job.data.body));
      }),
    counts: ({ url, queue }) => new (require('bull'))(queue, url).getJobCounts(),
  },
  bullmq: {
    put: async ({ url, queue, bodies }) => {
      const bullmq = new (require('bullmq').Queue)(queue, { connection: { url } });
      for (const body of bodies) await bullmq.add('theirs', { body });
    },
    take: ({ url, queue, count }) =>
      gather(count, (take) => {
        const connection = { url, maxRetriesPerRequest: null };
        new (require('bullmq').Worker)(queue, async (job) => take(job.data.body), { connection });
      }),
    counts: ({ url, queue }) => new (require('bullmq').Queue)(queue, { connection: { url } }).getJobCounts(),
  },
  kue: {
    put: (at) => {
      const queue = kue(at);
      const save = (body) => new Promise((resolve) => queue.create('message', { body }).save(resolve));
      return Promise.all(at.bodies.map(save));
    },
    take: (at) =>
      gather(at.count, (take) => {
        kue(at).process('message', (job, done) => {
          take(job.data.body);
          done();
        });
      }),
    counts: async (at) => {
      const queue = kue(at);
      const count = (state) =>
        new Promise((resolve) => queue[`${state}Count`]('message', (_error, told) => resolve([state, told])));
      return Object.fromEntries(await Promise.all(['inactive', 'active', 'complete', 'failed'].map(count)));
    },
  },
  rsmq: {
    put: async (at) => {
      for (const body of at.bodies) await rsmq(at).sendMessageAsync({ qname: at.queue, message: text(body) });
    },
    take: async (at) => {
      const taken = [];
      const queue = rsmq(at);
      while (taken.length < at.count) {
        const { id, message } = await queue.receiveMessageAsync({ qname: at.queue });
        if (!id) continue;
        await queue.deleteMessageAsync({ qname: at.queue, id });
        taken.push(base64(message));
      }
      return taken;
    },
    counts: (at) => rsmq(at).getQueueAttributesAsync({ qname: at.queue }),
  },
  amqplib: {
    put: async (at) => {
      const channel = await connect(at);
      for (const body of at.bodies) channel.sendToQueue(at.queue, Buffer.from(body, 'base64'));
      await channel.waitForConfirms();
    },
    take: async (at) => {
      const channel = await connect(at);
      return gather(at.count, (take) => {
        channel.consume(at.queue, (message) => {
          take(message.content.toString('base64'));
          channel.ack(message);
        });
      });
    },
    counts: async (at) => (await connect(at)).checkQueue(at.queue),
  },
  rabbitjs: {
    put: async (at) => {
      const push = await rabbit(at, 'PUSH', at.queue);
      for (const body of at.bodies) push.write(Buffer.from(body, 'base64'));
      await push.ch.checkQueue(at.queue);
    },
    take: async (at) => {
      const worker = await rabbit(at, 'WORKER', at.queue);
      return gather(at.count, (take) => {
        worker.on('data', (body) => {
          take(body.toString('base64'));
          worker.ack();
        });
      });
    },
    counts: async (at) => (await rabbit(at, 'PUSH', at.queue)).ch.checkQueue(at.queue),
  },
};

(async () => {
  let input = '';
  for await (const chunk of process.stdin) input += chunk;
  const { library, doing, ...at } = JSON.parse(input);
  const told = await LIBRARIES[library][doing](at);
  process.stdout.write(JSON.stringify(told === undefined ? null : told), () => process.exit(0));
})();
