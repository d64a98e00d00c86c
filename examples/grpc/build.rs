//! The service, as a `.proto` file would describe it.

use tonic_build::manual::{Builder, Method, Service};

fn main() {
    let method = |name: &str, route: &str, input: &str, output: &str| {
        Method::builder()
            .name(name)
            .route_name(route)
            .input_type(format!("crate::messages::{input}"))
            .output_type(format!("crate::messages::{output}"))
            .codec_path("crate::json::JsonCodec")
            .build()
    };
    let devices = Service::builder()
        .name("Devices")
        .package("shop.push.v1")
        .method(method("vapid_key", "VapidKey", "Empty", "VapidKey"))
        .method(method("subscribe", "Subscribe", "Subscribe", "Subscribed"))
        .method(method("list", "List", "Empty", "Devices"))
        .method(method("remove", "Remove", "Remove", "Empty"))
        .method(method("forget_me", "ForgetMe", "Empty", "Forgotten"))
        .build();
    let orders = Service::builder()
        .name("Orders")
        .package("shop.push.v1")
        .method(method("ship", "Ship", "Ship", "Shipped"))
        .build();
    Builder::new().compile(&[devices, orders]);
}
