// An application of one's own, on another origin than the server: what the tests call in its page.

/** What arrived, as worker.js tells it: `{name, octets}`. */
const arrived = [];
new BroadcastChannel("arrived").addEventListener("message", ({ data }) => arrived.push(data));

/** The application's worker in a scope of its own, once it can receive. */
async function registered(name, mount) {
  const address = `/worker.js?mount=${encodeURIComponent(mount)}`;
  const registration = await navigator.serviceWorker.register(address, { scope: `/${name}/` });
  const worker = registration.installing ?? registration.waiting ?? registration.active;
  await new Promise((resolve) => {
    const check = () => worker.state === "activated" && resolve();
    worker.addEventListener("statechange", check);
    check();
  });
  return registration;
}

async function subscribed(name, mount, applicationServerKey) {
  const { pushManager } = await registered(name, mount);
  return pushManager.subscribe({ userVisibleOnly: true, applicationServerKey });
}

/** Without a word to the server. */
async function unsubscribed(name) {
  const { pushManager } = await navigator.serviceWorker.getRegistration(`/${name}/`);
  return (await pushManager.getSubscription()).unsubscribe();
}
