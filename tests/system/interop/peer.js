// Answers questions of tests/interop.rs with npm's http_ece, web-push and web-push-testing: JSON lines in,
// JSON lines out. A question is {"op": ..., ...}, an answer {"ok": ...} or {"error": "..."}. Octets travel in
// unpadded base64url. The first argument is the folder whose node_modules has the packages.
'use strict';

const crypto = require('crypto');
const https = require('https');
const path = require('path');
const readline = require('readline');
const { createRequire } = require('module');

const peers = createRequire(path.join(path.resolve(process.argv[2]), 'package.json'));

// Packages chat on stdout, where only answers belong.
console.log = console.error;

const decode = (text) => Buffer.from(text, 'base64url');
const encode = (octets) => Buffer.from(octets).toString('base64url');

function ecdh(privateKey) {
  const key = crypto.createECDH('prime256v1');
  if (privateKey) {
    key.setPrivateKey(decode(privateKey));
  } else {
    key.generateKeys();
  }
  return key;
}

const ops = {
  decrypt({ body, private: privateKey, auth }) {
    const plaintext = peers('http_ece').decrypt(decode(body), {
      version: 'aes128gcm',
      privateKey: ecdh(privateKey),
      authSecret: decode(auth),
    });
    return encode(plaintext);
  },

  encrypt({ data, p256dh, auth, rs, pad }) {
    const body = peers('http_ece').encrypt(decode(data), {
      version: 'aes128gcm',
      privateKey: ecdh(),
      dh: decode(p256dh),
      authSecret: decode(auth),
      rs,
      pad,
    });
    return encode(body);
  },

  async send({ subscription, data, key, publicKey, sub, ttl, urgency, topic, ca }) {
    const options = {
      vapidDetails: { subject: sub, publicKey, privateKey: key },
      agent: new https.Agent({ ca }),
      timeout: 30000,
    };
    if (ttl !== null) options.TTL = ttl;
    if (urgency !== null) options.urgency = urgency;
    if (topic !== null) options.topic = topic;
    const payload = data === null ? null : decode(data);
    try {
      const { statusCode, headers } = await peers('web-push').sendNotification(subscription, payload, options);
      return { status: statusCode, location: headers.location ?? null };
    } catch (error) {
      if (error.statusCode === undefined) throw error;
      return { status: error.statusCode, location: null };
    } finally {
      options.agent.destroy();
    }
  },

  // web-push-testing, on a free port.
  async mock_start() {
    const { PushApiModel } = peers('web-push-testing/src/PushApiModel.js');
    const Server = peers('web-push-testing/src/server.js');
    const model = new PushApiModel();
    const server = new Server(model, 0);
    server.startServer();
    if (!server._server.listening) {
      await new Promise((resolve) => server._server.once('listening', resolve));
    }
    const { port } = server._server.address();
    model.notifyUrl = `http://localhost:${port}/notify/`;
    return { url: `http://localhost:${port}` };
  },

  // One request of its HTTP API, all of which is POST.
  async mock_post({ url, content }) {
    const response = await fetch(url, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(content),
    });
    const text = await response.text();
    if (response.status !== 200) throw new Error(`${response.status}: ${text}`);
    return text.startsWith('{') ? JSON.parse(text) : text;
  },
};

const lines = readline.createInterface({ input: process.stdin });
lines.on('line', async (line) => {
  let answer;
  try {
    const question = JSON.parse(line);
    answer = { ok: (await ops[question.op](question)) ?? null };
  } catch (error) {
    answer = { error: `${error.name}: ${error.message}` };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
});
// The test has ended: so does everything that still listens.
lines.on('close', () => process.exit(0));
