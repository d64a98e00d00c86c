//! The thread of a heartbeat, with a server in memory.

use super::*;
use crate::store::StoreErrorKind;

/// What a server knows, and whether it answers.
#[derive(Default)]
struct Server {
    last: WorkerId,
    beats: u32,
    is_marked: bool,
    is_away: bool,
    enlisted: u32,
}

#[derive(Clone, Default)]
struct Fake(Arc<Mutex<Server>>);

impl Fake {
    fn set(&self, change: impl FnOnce(&mut Server)) {
        change(&mut self.0.lock().unwrap());
    }

    fn answer<T>(&self, answer: impl FnOnce(&mut Server) -> T) -> Result<T, StoreError> {
        let mut server = self.0.lock().unwrap();
        match server.is_away {
            true => Err(StoreErrorKind::Unavailable.into()),
            false => Ok(answer(&mut server)),
        }
    }

    async fn until(&self, wanted: impl Fn(&Server) -> bool) {
        while !wanted(&self.0.lock().unwrap()) {
            sleep(Duration::from_millis(5)).await;
        }
    }
}

#[async_trait]
impl Pulse for Fake {
    async fn enlist(&mut self) -> Result<(WorkerId, Timestamp), StoreError> {
        self.answer(|server| {
            server.last += 1;
            server.enlisted += 1;
            server.is_marked = false;
            (server.last, Timestamp::from_millis(0))
        })
    }

    async fn beat(&mut self, id: WorkerId) -> Result<Option<Timestamp>, StoreError> {
        self.answer(|server| {
            assert_eq!(id, server.last);
            server.beats += 1;
            (!server.is_marked).then_some(Timestamp::from_millis(0))
        })
    }

    async fn others(&mut self, _: WorkerId) -> Result<Vec<Other>, StoreError> {
        self.answer(|_| Vec::new())
    }
}

#[tokio::test]
async fn the_first_claim_enlists_and_others_do_not() {
    let (heartbeat, server) = (Heartbeat::new(), Fake::default());
    assert_eq!(heartbeat.epoch(), Some(0));
    server.until(|server| server.enlisted == 0).await;
    for _ in 0..3 {
        let worker = heartbeat.worker(|| server.clone()).await;
        assert_eq!(worker, Some(1));
    }
    assert_eq!(heartbeat.epoch(), Some(0));
    server.until(|server| server.beats >= 2).await;
    assert_eq!(server.0.lock().unwrap().enlisted, 1);
}

/// Whatever the runtime of the application does.
#[tokio::test]
async fn it_beats_while_the_runtime_of_the_application_is_blocked() {
    let (heartbeat, server) = (Heartbeat::new(), Fake::default());
    heartbeat.worker(|| server.clone()).await;
    while server.0.lock().unwrap().beats < 3 {
        thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(heartbeat.epoch(), Some(0));
}

#[tokio::test]
async fn a_marked_worker_enlists_again_in_another_epoch() {
    let (heartbeat, server) = (Heartbeat::new(), Fake::default());
    heartbeat.worker(|| server.clone()).await;
    server.set(|server| server.is_marked = true);
    server.until(|server| server.enlisted == 2).await;
    while heartbeat.epoch() != Some(1) {
        sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(heartbeat.worker(|| server.clone()).await, Some(2));
}

#[tokio::test]
async fn without_a_heartbeat_claims_name_nobody() {
    let (heartbeat, server) = (Heartbeat::new(), Fake::default());
    server.set(|server| server.is_away = true);
    assert_eq!(heartbeat.worker(|| server.clone()).await, None);
    assert_eq!(heartbeat.epoch(), Some(0));
    // It is tried again.
    server.set(|server| server.is_away = false);
    server.until(|server| server.enlisted == 1).await;
    while heartbeat.worker(|| server.clone()).await != Some(1) {
        sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(heartbeat.epoch(), Some(0));
}

#[tokio::test]
async fn the_thread_ends_with_the_store() {
    let (heartbeat, server) = (Heartbeat::new(), Fake::default());
    heartbeat.worker(|| server.clone()).await;
    assert_eq!(Arc::strong_count(&server.0), 2);
    drop(heartbeat);
    while Arc::strong_count(&server.0) > 1 {
        sleep(Duration::from_millis(5)).await;
    }
}
