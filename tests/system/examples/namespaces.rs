//! Several installations in one database: the schema and the prefix in the URL of the store.

use std::process::id;
use std::time::{SystemTime, UNIX_EPOCH};

use super::world::{World, vapid_key};
use crate::support::servers::{Kind, shared};

pub(crate) async fn each_has_its_own_schema_or_prefix(name: &str) {
    let world = World::new().await;
    for (kind, parameter) in [(Kind::Postgres, "schema"), (Kind::Redis, "prefix")] {
        let Some(url) = shared(kind) else {
            continue;
        };
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let one = format!("one_{}_{}", id(), since.as_nanos());
        let separator = if url.contains('?') { '&' } else { '?' };
        let key = async |namespace: &str| {
            let url = format!("{url}{separator}{parameter}={namespace}");
            let (_server, client) = world.start(name, &[("STORE_URL", &url)]).await;
            vapid_key(&client).await
        };
        let first = key(&one).await;
        assert_eq!(key(&one).await, first, "{kind:?}");
        // Percent-encoded, as other parameters are.
        assert_eq!(key(&one.replacen('o', "%6f", 1)).await, first, "{kind:?}");
        assert_ne!(key(&one.replace("one", "two")).await, first, "{kind:?}");
    }
}
