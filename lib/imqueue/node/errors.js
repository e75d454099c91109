'use strict';

// Nothing of a batch was accepted.
class Rejected extends Error {}

module.exports = { Rejected };
