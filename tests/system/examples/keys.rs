//! The server's own VAPID keys: their source and their storage.

use tower_web_push::vapid::VapidKey;

use super::world::{World, vapid_key};
use crate::support::server_process::{command, finish};

pub(crate) async fn a_first_key_is_told_of_and_an_adopted_one_is_not(name: &str) {
    let made = "made the first VAPID key";
    let world = World::new().await;
    let (server, client) = world.start(name, &[]).await;
    let id = vapid_key(&client).await.id().to_string();
    let log = server.terminate_and_read().await;
    let lines: Vec<_> = log.lines().filter(|line| line.contains(made)).collect();
    let [line] = lines[..] else {
        panic!("not once: {log}");
    };
    assert!(line.contains("WARN") && line.contains(&id), "{line}");
    let (server, _client) = world.start(name, &[]).await;
    let log = server.terminate_and_read().await;
    assert!(!log.contains(made), "{log}");

    let world = World::new().await;
    let key = VapidKey::generate().unwrap();
    let private = key.secret_to_raw_base64url();
    let (server, client) = world.start(name, &[("VAPID_PRIVATE_KEY", &private)]).await;
    assert_eq!(vapid_key(&client).await, *key.public_key());
    let log = server.terminate_and_read().await;
    assert!(!log.contains(made), "{log}");
}

pub(crate) async fn a_clear_key_is_refused_but_in_the_start_that_seals_it(name: &str) {
    let world = World::new().await;
    let (server, client) = world.start(name, &[("KEY_ENCRYPTION_KEY", "")]).await;
    let key = vapid_key(&client).await;
    server.terminate().await;

    let store_url = world.store_url();
    let refused = [
        ("STORE_URL", store_url.as_str()),
        ("BIND", "127.0.0.1:0"),
        ("RUST_LOG", "off"),
        (
            "KEY_ENCRYPTION_KEY",
            "oP2cXnT9b0sYFvJ4LqRk6uE1iDzH8wGmA3tN7yB5CQ0",
        ),
    ];
    let output = finish(command(name, &refused)).await;
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{errors}");
    assert!(errors.contains("SEAL_CLEAR_KEYS=true"), "{errors}");

    let seal = [("SEAL_CLEAR_KEYS", "true")];
    let (server, client) = world.start(name, &seal).await;
    assert_eq!(vapid_key(&client).await, key);
    let log = server.terminate_and_read().await;
    assert!(log.contains("clear=1"), "{log}");
    let (server, client) = world.start(name, &[]).await;
    assert_eq!(vapid_key(&client).await, key);
    let log = server.terminate_and_read().await;
    assert!(!log.contains("SEAL_CLEAR_KEYS"), "{log}");
    // If it is left on, each start logs a warning.
    let (server, _client) = world.start(name, &seal).await;
    let log = server.terminate_and_read().await;
    assert!(log.contains("clear=0"), "{log}");
}
