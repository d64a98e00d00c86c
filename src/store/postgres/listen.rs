//! Hints about new work by NOTIFY and LISTEN.

use std::fmt;
use std::future::{pending, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;
use tokio::sync::{Mutex, watch};
use tokio::time::{sleep, timeout};
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{AsyncMessage, Client, Config, Connection, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::connection::Database;

/// The longest time that a call spends on a hint.
const LONGEST: Duration = Duration::from_secs(1);
/// The pauses between two attempts to connect.
const SHORTEST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// How to make the connection that listens.
#[derive(Clone)]
pub(super) struct Listening {
    pub(super) config: Config,
    pub(super) tls: MakeRustlsConnect,
    pub(super) connect_timeout: Duration,
}

/// Sends hints. Concurrent calls share one notification.
#[derive(Debug, Default)]
pub(super) struct Hints {
    /// To the workers of this process, which do not wait for the notification.
    own: watch::Sender<()>,
    wanted: AtomicU64,
    told: Mutex<u64>,
}

impl Hints {
    /// Called after the commit and not in the transaction: PostgreSQL serializes all commits that notify.
    pub(super) async fn tell(&self, database: &Database) {
        self.own.send_replace(());
        let mine = self.wanted.fetch_add(1, Ordering::SeqCst) + 1;
        let mut told = self.told.lock().await;
        if *told >= mine {
            return;
        }
        // All callers up to here have committed.
        let all = self.wanted.load(Ordering::SeqCst);
        // Best effort: workers poll as well.
        let notify = format!(
            "SET LOCAL synchronous_commit = off; NOTIFY \"{}\"",
            database.schema.channel()
        );
        let _ = timeout(LONGEST, database.script(&notify)).await;
        // Set last: if this future is dropped before, the next caller notifies.
        *told = all;
    }
}

type Encrypted = <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream;

/// A connection that listens while it is polled.
struct Listener {
    listening: Arc<Listening>,
    channel: String,
    live: Option<(Client, Connection<Socket, Encrypted>)>,
    failures: u32,
}

impl Listener {
    /// Waits for the next hint. A new connection gives one at once, for hints that were missed.
    async fn next(mut self) -> Self {
        loop {
            let Some((_, connection)) = &mut self.live else {
                self.connect().await;
                if self.live.is_some() {
                    return self;
                }
                continue;
            };
            let heard = poll_fn(|context| poll_all(connection, context)).await;
            if heard {
                return self;
            }
            self.live = None;
            // A server that closes each connection is not asked again at once.
            self.failures = 1;
        }
    }

    async fn connect(&mut self) {
        if self.failures > 0 {
            let doubled = SHORTEST_PAUSE * (1 << self.failures.min(6));
            sleep(doubled.min(LONGEST_PAUSE)).await;
        }
        let listening = Arc::clone(&self.listening);
        let connect = async {
            let connected = listening.config.connect(listening.tls.clone()).await;
            let (client, mut connection) = connected.ok()?;
            let listen = format!("LISTEN \"{}\"", self.channel);
            let listens = tokio::select! {
                listens = client.batch_execute(&listen) => listens.is_ok(),
                // Notifications received here are covered by the hint that follows.
                () = until_closed(&mut connection) => false,
            };
            listens.then_some((client, connection))
        };
        self.live = timeout(listening.connect_timeout, connect)
            .await
            .ok()
            .flatten();
        self.failures = match self.live {
            Some(_) => 0,
            None => self.failures.saturating_add(1),
        };
    }
}

/// Ready with `true` after notifications, all pending ones included, and with `false` when the connection is closed.
fn poll_all(
    connection: &mut Connection<Socket, Encrypted>,
    context: &mut Context<'_>,
) -> Poll<bool> {
    let mut heard = false;
    loop {
        match connection.poll_message(context) {
            Poll::Ready(Some(Ok(message))) => {
                heard |= matches!(message, AsyncMessage::Notification(_));
            }
            Poll::Ready(_) if heard => return Poll::Ready(true),
            Poll::Ready(_) => return Poll::Ready(false),
            Poll::Pending if heard => return Poll::Ready(true),
            Poll::Pending => return Poll::Pending,
        }
    }
}

async fn until_closed(connection: &mut Connection<Socket, Encrypted>) {
    while poll_fn(|context| poll_all(connection, context)).await {}
}

/// An endless stream of the hints of this process and of a listener, if there is one.
pub(super) struct Heard {
    own: Next<watch::Receiver<()>>,
    others: Option<Next<Listener>>,
}

type Next<T> = Pin<Box<dyn Future<Output = T> + Send>>;

impl Heard {
    pub(super) fn new(hints: &Hints, listening: Option<&Arc<Listening>>, channel: String) -> Self {
        let listener = listening.map(|listening| Listener {
            listening: Arc::clone(listening),
            channel,
            live: None,
            failures: 0,
        });
        Self {
            own: Box::pin(changed(hints.own.subscribe())),
            others: listener.map(|listener| Box::pin(listener.next()) as _),
        }
    }
}

async fn changed(mut own: watch::Receiver<()>) -> watch::Receiver<()> {
    if own.changed().await.is_err() {
        pending::<()>().await;
    }
    own
}

impl Stream for Heard {
    type Item = ();

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<()>> {
        if let Poll::Ready(own) = self.own.as_mut().poll(context) {
            self.own = Box::pin(changed(own));
            return Poll::Ready(Some(()));
        }
        let Some(others) = &mut self.others else {
            return Poll::Pending;
        };
        others.as_mut().poll(context).map(|listener| {
            self.others = Some(Box::pin(listener.next()));
            Some(())
        })
    }
}

impl fmt::Debug for Listening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listening").finish_non_exhaustive()
    }
}
