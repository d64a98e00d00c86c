// An application's own worker, which imports ours; it tells the page what arrived, octet by octet.
const channel = new BroadcastChannel("arrived");
const name = new URL(registration.scope).pathname.replaceAll("/", "");

addEventListener("push", ({ data }) => {
  channel.postMessage({ name, octets: data === null ? null : [...new Uint8Array(data.arrayBuffer())] });
});

self.webPush = { mount: new URL(location.href).searchParams.get("mount") };
importScripts(`${self.webPush.mount}service-worker.js`);
