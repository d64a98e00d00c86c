// Sends with npm's web-push: FOLDER prepare|send MESSAGES OCTETS, as the senders in Rust. NODE_PATH says where the
// package is, NODE_EXTRA_CA_CERTS where the certificate of the push service is.
'use strict';

const fs = require('fs');
const https = require('https');
const path = require('path');
const webPush = require('web-push');

const IN_FLIGHT = 64;

const [folder, mode, count, octets] = process.argv.slice(2);
const messages = Number(count);
const payload = Buffer.alloc(Number(octets), 'x');
const work = JSON.parse(fs.readFileSync(path.join(folder, 'work.json'), 'utf8'));
const subscriptions = work.subscriptions
  .slice(0, messages)
  .map(({ endpoint, p256dh, auth }) => ({ endpoint, keys: { p256dh, auth } }));
if (subscriptions.length < messages) throw new Error('fewer subscriptions than messages');
work.subscriptions = null;
webPush.setVapidDetails(work.contact, work.public_key, work.private_key);

// Without an agent, every message would make a connection of its own.
const agent = new https.Agent({ keepAlive: true, maxSockets: IN_FLIGHT });

const one = {
  prepare(subscription) {
    const { body } = webPush.generateRequestDetails(subscription, payload);
    if (body.length <= payload.length) throw new Error('the payload is not in the body');
  },
  async send(subscription) {
    const { statusCode } = await webPush.sendNotification(subscription, payload, { agent });
    if (statusCode !== 201) throw new Error(`the push service answered ${statusCode}`);
  },
}[mode];

async function all(list) {
  let next = 0;
  const worker = async () => {
    while (next < list.length) {
      const subscription = list[next];
      next += 1;
      await one(subscription);
    }
  };
  await Promise.all(Array.from({ length: mode === 'send' ? IN_FLIGHT : 1 }, worker));
}

async function main() {
  // A tenth of the messages comes first and is not measured.
  await all(subscriptions.slice(0, Math.ceil(messages / 10)));
  const [begun, before] = [process.hrtime.bigint(), process.cpuUsage()];
  await all(subscriptions);
  const { user, system } = process.cpuUsage(before);
  const seconds = Number(process.hrtime.bigint() - begun) / 1e9;
  const peak = /VmHWM:\s+(\d+)/.exec(fs.readFileSync('/proc/self/status', 'utf8'));
  const report = { messages, cpu_us: user + system, seconds, peak_kib: Number(peak[1]) };
  process.stdout.write(`${JSON.stringify(report)}\n`);
  agent.destroy();
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
