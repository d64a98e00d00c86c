//! What Redis' errors mean to whoever uses a store.

use std::io;

use redis::{ErrorKind, RedisError, ServerErrorKind};

use crate::store::reason::because;
use crate::store::{StoreError, StoreErrorKind};

/// The meaning of an error of the server or of the way to it.
pub(super) fn failed(error: RedisError) -> StoreError {
    let kind = match error.kind() {
        ErrorKind::AuthenticationFailed
        | ErrorKind::InvalidClientConfig
        | ErrorKind::RESP3NotSupported
        | ErrorKind::Server(ServerErrorKind::NoPerm | ServerErrorKind::CrossSlot) => {
            StoreErrorKind::Misconfigured
        }
        ErrorKind::UnexpectedReturnType => StoreErrorKind::Corrupt,
        ErrorKind::Server(ServerErrorKind::ResponseError) => in_script(&error),
        ErrorKind::Extension => of_code(error.code().unwrap_or_default()),
        // LOADING, MASTERDOWN, READONLY (after a failover), CLUSTERDOWN, TRYAGAIN, and the network.
        _ => StoreErrorKind::Unavailable,
    };
    StoreError::new(kind, error)
}

/// The meaning of an error while connecting.
pub(super) fn failed_to_dial(error: io::Error) -> StoreError {
    let kind = match is_certificate(&error) {
        true => StoreErrorKind::Misconfigured,
        false => StoreErrorKind::Unavailable,
    };
    StoreError::new(kind, error)
}

/// Whether it is the server's certificate that keeps us away.
pub(super) fn is_certificate(error: &io::Error) -> bool {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref());
    matches!(cause, Some(rustls::Error::InvalidCertificate(_)))
}

fn of_code(code: &str) -> StoreErrorKind {
    match code {
        // Nothing was changed: scripts are refused before they begin to write.
        "OOM" => StoreErrorKind::Full,
        "NOAUTH" | "WRONGPASS" | "NOPROTO" => StoreErrorKind::Misconfigured,
        "WRONGTYPE" => StoreErrorKind::Corrupt,
        // BUSY, MISCONF (the disk), NOREPLICAS.
        _ => StoreErrorKind::Unavailable,
    }
}

/// Before Redis 7 the error of a command in a script is a text within the script's own.
fn in_script(error: &RedisError) -> StoreErrorKind {
    let text = error.detail().unwrap_or_default();
    let has = |code| text.contains(code);
    if has("-OOM ") || has("OOM command not allowed") {
        StoreErrorKind::Full
    } else if is_readonly(error) || has("-MISCONF ") || has("-NOREPLICAS ") || has("-CLUSTERDOWN ")
    {
        StoreErrorKind::Unavailable
    } else if has("-NOPERM ") || has("DB index is out of range") {
        StoreErrorKind::Misconfigured
    } else {
        // A script that fails has found what it did not write.
        StoreErrorKind::Corrupt
    }
}

/// Whether it was answered by a server that is a replica now.
pub(super) fn is_readonly(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::ReadOnly)
        || error
            .detail()
            .is_some_and(|text| text.contains("-READONLY "))
}

/// No answer within the limits.
pub(super) fn too_slow() -> StoreError {
    because(StoreErrorKind::Unavailable, "redis did not answer in time")
}

/// Others were faster each time.
pub(super) fn outrun() -> StoreError {
    because(
        StoreErrorKind::Unavailable,
        "others changed the same entry again and again",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_that_the_server_has_not_is_a_wrong_setting() {
        let error = RedisError::from((
            ErrorKind::Server(ServerErrorKind::ResponseError),
            "Redis server refused to switch database",
            "DB index is out of range".to_owned(),
        ));
        assert_eq!(failed(error).kind(), StoreErrorKind::Misconfigured);
    }
}
