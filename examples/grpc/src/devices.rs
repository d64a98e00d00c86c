//! A user's browsers: register, list, remove, forget.

use tonic::{Code, Request, Response, Status};
use tower_web_push::engine::{RegisterError, RegisterErrorKind};
use tower_web_push::store::StoreError;
use tower_web_push::{Registration, Subscription, WebPush};

use crate::generated::devices_server::Devices;
use crate::messages::{self, Empty, Forgotten, Remove, Subscribe, Subscribed, VapidKey};
use crate::sign_in::user;

#[derive(Debug)]
pub(crate) struct MyDevices(pub WebPush);

#[tonic::async_trait]
impl Devices for MyDevices {
    async fn vapid_key(&self, _: Request<Empty>) -> Result<Response<VapidKey>, Status> {
        let application_server_key = self.0.vapid_public_key().to_base64url();
        Ok(Response::new(VapidKey {
            application_server_key,
        }))
    }

    async fn subscribe(&self, request: Request<Subscribe>) -> Result<Response<Subscribed>, Status> {
        let user = user(&request)?;
        let json = request.into_inner().subscription.to_string();
        let subscription = Subscription::from_json(json.as_bytes())
            .map_err(|error| Status::invalid_argument(error.kind().code()))?;
        let registration = Registration::new(subscription).principal(user);
        let registered = self.0.subscribe(registration).await.map_err(refused)?;
        Ok(Response::new(Subscribed {
            id: registered.id.to_string(),
            created: registered.created,
            stale_key: registered.stale_key,
        }))
    }

    async fn list(&self, request: Request<Empty>) -> Result<Response<messages::Devices>, Status> {
        let devices = self
            .0
            .devices(&user(&request)?)
            .await
            .map_err(unavailable)?;
        let devices = devices.into_iter().map(|device| messages::Device {
            id: device.id.to_string(),
            push_service: device.push_service.to_string(),
            state: device.state.to_string(),
        });
        Ok(Response::new(messages::Devices {
            devices: devices.collect(),
        }))
    }

    async fn remove(&self, request: Request<Remove>) -> Result<Response<Empty>, Status> {
        let user = user(&request)?;
        let unknown = || Status::not_found("unknown_subscription");
        let id = request.into_inner().id.parse().map_err(|_| unknown())?;
        match self.0.remove(&user, id).await.map_err(unavailable)? {
            true => Ok(Response::new(Empty {})),
            false => Err(unknown()),
        }
    }

    /// The user closes the account.
    async fn forget_me(&self, request: Request<Empty>) -> Result<Response<Forgotten>, Status> {
        let forgotten = self.0.forget(&user(&request)?).await.map_err(unavailable)?;
        Ok(Response::new(Forgotten {
            subscriptions: forgotten.subscriptions,
        }))
    }
}

/// Maps the crate's kinds to those of gRPC. The message is the stable code of the HTTP API.
fn refused(error: RegisterError) -> Status {
    use RegisterErrorKind::{
        Conflict, EndpointUnverified, Store, StoreFull, UnknownVapidKey, Vapid,
    };
    let code = match error.kind() {
        Conflict => Code::PermissionDenied,
        UnknownVapidKey => Code::FailedPrecondition,
        StoreFull => Code::ResourceExhausted,
        EndpointUnverified { .. } | Store | Vapid => Code::Unavailable,
        _ => Code::InvalidArgument,
    };
    Status::new(code, error.kind().code())
}

fn unavailable(_: StoreError) -> Status {
    Status::unavailable("store_unavailable")
}
