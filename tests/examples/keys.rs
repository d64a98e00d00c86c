//! The server's own VAPID keys: where they come from, and how they are kept.

use tower_web_push::vapid::VapidKey;

use crate::server_process::{ServerProcess, command, finish};
use crate::world::{World, vapid_key};

pub(crate) async fn a_first_key_is_told_of_and_an_adopted_one_is_not(name: &str) {
    let made = |server: &ServerProcess| -> Vec<String> {
        let printed = server.printed();
        let lines = printed
            .lines()
            .filter(|line| line.contains("made the first VAPID key"));
        lines.map(str::to_owned).collect()
    };
    let world = World::new().await;
    let (server, client) = world.start(name, &[]).await;
    let id = vapid_key(&client).await.id().to_string();
    let lines = made(&server);
    assert_eq!(lines.len(), 1, "{}", server.printed());
    assert!(
        lines[0].contains("WARN") && lines[0].contains(&id),
        "{lines:?}"
    );
    server.terminate().await;
    let (server, _client) = world.start(name, &[]).await;
    assert!(made(&server).is_empty(), "{}", server.printed());
    server.terminate().await;

    let world = World::new().await;
    let key = VapidKey::generate().unwrap();
    let private = key.secret_to_raw_base64url();
    let (server, client) = world.start(name, &[("VAPID_PRIVATE_KEY", &private)]).await;
    assert_eq!(vapid_key(&client).await, *key.public_key());
    assert!(made(&server).is_empty(), "{}", server.printed());
    server.terminate().await;
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
    assert!(server.printed().contains("clear=1"), "{}", server.printed());
    server.terminate().await;
    let (server, client) = world.start(name, &[]).await;
    assert_eq!(vapid_key(&client).await, key);
    assert!(
        !server.printed().contains("SEAL_CLEAR_KEYS"),
        "{}",
        server.printed()
    );
    server.terminate().await;
    // Left on, it is told of at each start.
    let (server, _client) = world.start(name, &seal).await;
    assert!(server.printed().contains("clear=0"), "{}", server.printed());
    server.terminate().await;
}
