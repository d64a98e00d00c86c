//! The connection: shared by all calls, and replaced when it is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use std::{fmt, io};

use redis::aio::{ConnectionLike, ConnectionManager, MultiplexedConnection};
use redis::cluster_async::ClusterConnection;
use redis::{AsyncConnectionConfig, Cmd, RedisError, Value};
use tokio::sync::Mutex;
use tokio::time::{sleep, timeout};

use super::address::Address;
use super::error::{is_certificate, is_readonly};
use crate::store::StoreError;

/// The number of attempts to connect in one call, and the first pause between two of them.
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_millis(50);

/// The timeouts of a connection and an answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) connect: Duration,
    pub(super) answer: Duration,
}

impl Limits {
    /// The timeout of a whole call.
    pub(super) fn call(self) -> Duration {
        self.connect.saturating_add(self.answer)
    }
}

/// The way to the server.
pub(super) enum Link {
    Own(Box<Own>),
    Manager(ConnectionManager),
    Cluster(ClusterConnection),
}

impl Link {
    /// Sends a command once, and waits for its answer within the timeouts.
    pub(super) async fn send(&self, cmd: &Cmd, limits: Limits) -> Result<Value, LinkError> {
        let answer = async {
            match self {
                Self::Own(own) => own.send(cmd, limits).await,
                Self::Manager(manager) => Ok(ask(&mut manager.clone(), cmd).await?),
                Self::Cluster(cluster) => Ok(ask(&mut cluster.clone(), cmd).await?),
            }
        };
        match timeout(limits.call(), answer).await {
            Ok(answer) => answer,
            Err(_) => Err(LinkError::TooSlow),
        }
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own(own) => own.address.fmt(f),
            Self::Manager(_) => f.write_str("ConnectionManager"),
            Self::Cluster(_) => f.write_str("ClusterConnection"),
        }
    }
}

/// Sends a command. An error reply is an error.
async fn ask(connection: &mut impl ConnectionLike, cmd: &Cmd) -> Result<Value, RedisError> {
    let answer = connection.req_packed_command(cmd).await?;
    answer.extract_error()
}

/// The reason why there is no answer.
pub(super) enum LinkError {
    Redis(RedisError),
    Dial(io::Error),
    TooSlow,
}

impl From<RedisError> for LinkError {
    fn from(error: RedisError) -> Self {
        Self::Redis(error)
    }
}

impl From<LinkError> for StoreError {
    fn from(error: LinkError) -> Self {
        match error {
            LinkError::Redis(error) => super::error::failed(error),
            LinkError::Dial(error) => super::error::failed_to_dial(error),
            LinkError::TooSlow => super::error::too_slow(),
        }
    }
}

/// A connection that the store makes itself.
pub(super) struct Own {
    pub(super) address: Address,
    current: Mutex<Option<Alive>>,
}

#[derive(Clone)]
struct Alive {
    connection: MultiplexedConnection,
    /// Set when the connection has ended.
    is_over: Arc<AtomicBool>,
}

impl Own {
    pub(super) fn new(address: Address) -> Self {
        Self {
            address,
            current: Mutex::new(None),
        }
    }

    async fn send(&self, cmd: &Cmd, limits: Limits) -> Result<Value, LinkError> {
        let mut alive = self.alive(limits).await?;
        let answer = timeout(limits.answer, ask(&mut alive.connection, cmd)).await;
        // A connection without an answer may be dead without a close, and a server that has become a replica is no
        // longer the one behind its name.
        let is_over = match &answer {
            Err(_) => true,
            Ok(Err(error)) => {
                error.is_unrecoverable_error() || error.is_io_error() || is_readonly(error)
            }
            Ok(Ok(_)) => false,
        };
        if is_over {
            alive.is_over.store(true, Ordering::Relaxed);
        }
        match answer {
            Ok(answer) => Ok(answer?),
            Err(_) => Err(LinkError::TooSlow),
        }
    }

    /// Returns the connection, or makes a new one. Concurrent callers wait for the same attempt.
    async fn alive(&self, limits: Limits) -> Result<Alive, LinkError> {
        let mut current = self.current.lock().await;
        if let Some(alive) = &*current
            && !alive.is_over.load(Ordering::Relaxed)
        {
            return Ok(alive.clone());
        }
        *current = None;
        let mut pause = PAUSE;
        let mut tries = 1;
        loop {
            let error = match timeout(limits.connect, self.connect()).await {
                Ok(Ok(alive)) => {
                    *current = Some(alive.clone());
                    return Ok(alive);
                }
                Ok(Err(error)) => error,
                Err(_) => LinkError::TooSlow,
            };
            if tries == TRIES || !is_passing(&error) {
                return Err(error);
            }
            sleep(pause).await;
            tries += 1;
            pause *= 2;
        }
    }

    async fn connect(&self) -> Result<Alive, LinkError> {
        let stream = self.address.dial().await.map_err(LinkError::Dial)?;
        // The timeouts are applied by the callers.
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(None)
            .set_response_timeout(None);
        let settings = &self.address.settings;
        let (connection, driver) =
            MultiplexedConnection::new_with_config(settings, stream, config).await?;
        let is_over = Arc::new(AtomicBool::new(false));
        // The task ends with the last handle of the connection.
        tokio::spawn({
            let is_over = Arc::clone(&is_over);
            async move {
                driver.await;
                is_over.store(true, Ordering::Relaxed);
            }
        });
        Ok(Alive {
            connection,
            is_over,
        })
    }
}

/// Returns whether another attempt may succeed: after a network error, not with a wrong certificate or password.
fn is_passing(error: &LinkError) -> bool {
    match error {
        LinkError::TooSlow => true,
        LinkError::Dial(error) => !is_certificate(error),
        LinkError::Redis(error) => error.is_connection_dropped() || error.is_timeout(),
    }
}
