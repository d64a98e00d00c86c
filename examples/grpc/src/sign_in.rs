//! Authentication.

use tonic::{Request, Status};
use tower_web_push::Principal;

/// Stands for the application's own sessions: puts the user into the request's extensions.
pub(crate) fn sign_in(mut request: Request<()>) -> Result<Request<()>, Status> {
    let session = request.metadata().get("authorization");
    let user = match session.map(|value| value.as_bytes()) {
        Some(b"Bearer alice-session") => "alice",
        Some(b"Bearer bob-session") => "bob",
        _ => return Err(Status::unauthenticated("sign in first")),
    };
    request.extensions_mut().insert(Principal::from(user));
    Ok(request)
}

/// The user of a request that passed [`sign_in`].
pub(crate) fn user<T>(request: &Request<T>) -> Result<Principal, Status> {
    let user = request.extensions().get::<Principal>().cloned();
    user.ok_or_else(|| Status::unauthenticated("sign in first"))
}
