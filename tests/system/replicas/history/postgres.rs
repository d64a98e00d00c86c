//! The changes that a trigger of PostgreSQL records.

use tokio_postgres::{Client, NoTls};

use super::{Event, Lives, Row};
use crate::replicas::world::World;

/// A broadcast and a recipient.
type Of = (i64, Vec<u8>);

/// Records from now on.
pub(super) async fn record(world: &World) {
    let client = connect(world).await;
    client
        .batch_execute(include_str!("postgres.sql"))
        .await
        .unwrap();
}

/// Returns what was recorded.
pub(super) async fn lives(world: &World) -> Lives<Of> {
    let client = connect(world).await;
    let sql = "SELECT broadcast, key, moment, owner_is_dead, before IS DISTINCT FROM NULL, (before).leased, \
         (before).turn IS NOT NULL, (before).at, (before).fence, (before).attempt, (before).worker, \
         after IS DISTINCT FROM NULL, (after).leased, (after).turn IS NOT NULL, (after).at, (after).fence, \
         (after).attempt, (after).worker FROM public.history ORDER BY broadcast, key, seq";
    let mut lives = Lives::default();
    for (recorded, seq) in client.query(sql, &[]).await.unwrap().iter().zip(0..) {
        let row = |first: usize| {
            recorded.get::<_, bool>(first).then(|| Row {
                is_leased: recorded.get(first + 1),
                is_ready: recorded.get(first + 2),
                at: recorded.get(first + 3),
                fence: recorded.get(first + 4),
                attempt: recorded.get(first + 5),
                worker: recorded.get(first + 6),
            })
        };
        let event = Event {
            moment: recorded.get(2),
            owner_is_dead: recorded.get(3),
            // A trigger does not see the statement's values.
            is_by_token: true,
            before: row(4),
            after: row(11),
        };
        // Each row has a token of its own.
        let noted = lives.note(&(recorded.get(0), recorded.get(1)), &event, seq);
        noted.unwrap_or_else(|error| panic!("{error}"));
    }
    let signs =
        "SELECT worker, is_new, moment FROM public.sign ORDER BY worker, is_new DESC, moment";
    for sign in client.query(signs, &[]).await.unwrap() {
        lives.note_sign(i64::from(sign.get::<_, i32>(0)), sign.get(1), sign.get(2));
    }
    lives
}

async fn connect(world: &World) -> Client {
    let url = world.database.url();
    let (client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}
