//! The kinds of Redis' errors.

use std::io;

use redis::{ErrorKind, RedisError, ServerErrorKind};

use crate::store::reason::because;
use crate::store::{StoreError, StoreErrorKind};

/// Maps an error of the server or the connection.
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

/// Maps an error while connecting.
pub(super) fn failed_to_dial(error: io::Error) -> StoreError {
    let kind = match is_certificate(&error) {
        true => StoreErrorKind::Misconfigured,
        false => StoreErrorKind::Unavailable,
    };
    StoreError::new(kind, error)
}

/// Returns whether the server's certificate was refused.
pub(super) fn is_certificate(error: &io::Error) -> bool {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref());
    matches!(cause, Some(rustls::Error::InvalidCertificate(_)))
}

fn of_code(code: &str) -> StoreErrorKind {
    match code {
        // Nothing was changed: scripts are refused before their first write.
        "OOM" => StoreErrorKind::Full,
        "NOAUTH" | "WRONGPASS" | "NOPROTO" => StoreErrorKind::Misconfigured,
        "WRONGTYPE" => StoreErrorKind::Corrupt,
        // BUSY, MISCONF (the disk), NOREPLICAS.
        _ => StoreErrorKind::Unavailable,
    }
}

/// Maps an error in a script. Before Redis 7 the error of a command is a text within the script's error.
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
        // A failing script has read unexpected data.
        StoreErrorKind::Corrupt
    }
}

/// Returns whether the server has become a replica.
pub(super) fn is_readonly(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::ReadOnly)
        || error
            .detail()
            .is_some_and(|text| text.contains("-READONLY "))
}

/// The error for an answer that exceeds its timeout.
pub(super) fn too_slow() -> StoreError {
    because(StoreErrorKind::Unavailable, "redis did not answer in time")
}

/// The error after too many conflicts with concurrent changes.
pub(super) fn outrun() -> StoreError {
    because(
        StoreErrorKind::Unavailable,
        "others changed the same entry again and again",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Before Redis 7 a script that writes fails with the server's error as a part of its own.
    #[test]
    fn a_script_that_fails_on_a_replica_has_read_no_damaged_data() {
        let in_script = |text: &str| {
            let kind = ErrorKind::Server(ServerErrorKind::ResponseError);
            let text = format!("Error running script (call to f_1): @user_script:1: {text}");
            RedisError::from((kind, "An error was signalled by the server", text))
        };
        let readonly = in_script("-READONLY You can't write against a read only replica.");
        assert!(is_readonly(&readonly));
        assert!(!is_readonly(&in_script("-OOM command not allowed")));
    }

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
