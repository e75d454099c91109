'use strict';
// What the libraries that carry JSON need to move bytes unchanged.

// In JSON a byte below 32 takes six characters, so base64 is shorter for anything but text: {"body": "<base64>"}.
const wrap = (body) => ({ body: body.toString('base64') });

// A job that somebody else put into the queue comes out as the JSON of its data.
const unwrap = (data) =>
  data && typeof data.body === 'string' ? Buffer.from(data.body, 'base64') : Buffer.from(JSON.stringify(data));

module.exports = { wrap, unwrap };
