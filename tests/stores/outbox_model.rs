//! The outbox against a model of its contract, with random steps of an application and of several workers.
//!
//! `PROPTEST_CASES=2560 cargo test --all-features --test stores outbox_model` runs ten times as many cases.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use serde_json::Value;
use tower_web_push::broadcast::{Audience, Broadcast, BroadcastId, OutboxDialect, Principal};
use tower_web_push::clock::Timestamp;
use tower_web_push::message::Message;
use tower_web_push::store::{
    DeliveryLedger, Idempotency, NewBroadcast, OutboxEntry, OutboxRefusal, OutboxSettled,
    OutboxSettlement, OutboxStats,
};

use crate::application_file::ApplicationFile;
use crate::postgres::world::{Schema, client};

const WORKERS: usize = 3;
const USERS: u8 = 3;
/// More entries than there ever are.
const ALL: usize = 1_000;
const BEGIN: i64 = 1_800_000_000;

type Checked<T = ()> = Result<T, TestCaseError>;

/// One step. Numbers are taken modulo the number of candidates, so that every sequence is valid.
#[derive(Clone, Debug)]
enum Op {
    /// The application writes entries in one transaction: the user of each, or none for everybody.
    Write {
        to: Vec<Option<u8>>,
        commits: bool,
    },
    /// A worker lists entries, and keeps the result for later.
    List {
        worker: usize,
        limit: usize,
    },
    /// A worker settles entries that it listed, some of which may be settled by now.
    Settle {
        worker: usize,
        entries: Vec<(usize, How)>,
    },
    /// Lets any entry wait again, refused or not.
    Retry(usize),
    Drop(usize),
    Erase(u8),
    /// All workers forget what they listed, and the store is opened again.
    Restart,
}

#[derive(Clone, Copy, Debug)]
enum How {
    /// Opens a broadcast with the entry's own id, and a key and fingerprint.
    Open(Option<(u8, u8)>),
    /// Opens a broadcast with the id of an earlier one.
    OpenAgain(usize),
    Refuse(u8),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let to = prop_oneof![Just(None), (0..USERS).prop_map(Some)];
    let how = prop_oneof![
        3 => proptest::option::of((0..4_u8, 0..2_u8)).prop_map(How::Open),
        1 => any::<usize>().prop_map(How::OpenAgain),
        1 => any::<u8>().prop_map(How::Refuse),
    ];
    let op = prop_oneof![
        4 => (vec(to, 1..4), prop::bool::weighted(0.7))
            .prop_map(|(to, commits)| Op::Write { to, commits }),
        4 => (0..WORKERS, 0..6_usize).prop_map(|(worker, limit)| Op::List { worker, limit }),
        5 => (0..WORKERS, vec((any::<usize>(), how), 1..5))
            .prop_map(|(worker, entries)| Op::Settle { worker, entries }),
        1 => any::<usize>().prop_map(Op::Retry),
        1 => any::<usize>().prop_map(Op::Drop),
        1 => (0..USERS).prop_map(Op::Erase),
        1 => Just(Op::Restart),
    ];
    vec(op, 1..40)
}

/// What an application has: a store with an outbox, and a connection of its own.
enum Backend {
    Sqlite(ApplicationFile),
    Postgres(Schema),
}

impl Backend {
    /// As in two processes.
    async fn open(&self) -> Vec<Arc<dyn DeliveryLedger>> {
        match self {
            Self::Sqlite(file) => vec![Arc::new(file.store().await), Arc::new(file.store().await)],
            Self::Postgres(schema) => {
                let builder = schema.builder().pool_size(1);
                vec![
                    Arc::new(builder.clone().connect(&schema.url).await.unwrap()),
                    Arc::new(builder.connect(&schema.url).await.unwrap()),
                ]
            }
        }
    }

    /// Writes entries in one transaction.
    async fn write(&self, broadcasts: &[Broadcast], commits: bool) {
        match self {
            Self::Sqlite(file) => {
                let mut conn = file.connect();
                let transaction = conn.transaction().unwrap();
                for broadcast in broadcasts {
                    let written = broadcast.outbox_statement(OutboxDialect::SQLITE);
                    transaction
                        .execute(&written.sql, written.parameters)
                        .unwrap();
                }
                match commits {
                    true => transaction.commit().unwrap(),
                    false => transaction.rollback().unwrap(),
                }
            }
            Self::Postgres(schema) => {
                let mut client = client(&schema.url).await;
                let transaction = client.transaction().await.unwrap();
                for broadcast in broadcasts {
                    let schema = OutboxDialect::Postgres {
                        schema: &schema.name,
                    };
                    let written = broadcast.outbox_statement(schema);
                    let [audience, message, opts] = &written.parameters;
                    let values: [&(dyn tokio_postgres::types::ToSql + Sync); 3] =
                        [audience, message, opts];
                    transaction.execute(&written.sql, &values).await.unwrap();
                }
                match commits {
                    true => transaction.commit().await.unwrap(),
                    false => transaction.rollback().await.unwrap(),
                }
            }
        }
    }
}

/// What the contract says that there is.
#[derive(Default)]
struct Model {
    waiting: BTreeMap<i64, OutboxEntry>,
    refused: BTreeMap<i64, (OutboxEntry, OutboxRefusal, Timestamp)>,
    opened: BTreeSet<BroadcastId>,
    /// The fingerprints of idempotency keys.
    keys: HashMap<u8, u8>,
    /// The numbers of all entries so far.
    seqs: Vec<i64>,
}

impl Model {
    fn settle(&mut self, seq: i64, settling: &Settling, now: Timestamp) -> OutboxSettled {
        let Some(entry) = self.waiting.remove(&seq) else {
            return OutboxSettled::Taken;
        };
        let (id, key) = match settling {
            Settling::Open(id, key) => (*id, *key),
            Settling::Refuse(refusal) => {
                self.refused.insert(seq, (entry, refusal.clone(), now));
                return OutboxSettled::Refused;
            }
        };
        if self.opened.contains(&id) {
            return OutboxSettled::Repeat;
        }
        if let Some((key, fingerprint)) = key {
            match self.keys.get(&key) {
                Some(known) if *known == fingerprint => return OutboxSettled::Repeat,
                Some(_) => {
                    let refusal = OutboxRefusal::conflict();
                    self.refused.insert(seq, (entry, refusal, now));
                    return OutboxSettled::Conflict;
                }
                None => self.keys.insert(key, fingerprint),
            };
        }
        self.opened.insert(id);
        OutboxSettled::Opened
    }

    /// The entries to a user alone.
    fn erase(&mut self, user: u8) {
        let is_left = |entry: &OutboxEntry| {
            let audience: Audience = serde_json::from_str(&entry.audience).unwrap();
            audience != Audience::User(principal(user))
        };
        self.waiting.retain(|_, entry| is_left(entry));
        self.refused.retain(|_, (entry, ..)| is_left(entry));
    }

    fn any_seq(&self, number: usize) -> i64 {
        match self.seqs.len() {
            0 => 1,
            len => self.seqs[number % len],
        }
    }
}

enum Settling {
    Open(BroadcastId, Option<(u8, u8)>),
    Refuse(OutboxRefusal),
}

impl Settling {
    fn settlement(&self) -> OutboxSettlement {
        match self {
            Self::Open(id, key) => {
                let deadline = Timestamp::from_secs(BEGIN + 86_400);
                let mut new = NewBroadcast::new(Audience::All, Message::new("x"), deadline);
                new.id = *id;
                new.idempotency = key.map(|(key, fingerprint)| {
                    Idempotency::new(format!("key-{key}"), [fingerprint; 32])
                });
                OutboxSettlement::Open(Box::new(new))
            }
            Self::Refuse(refusal) => OutboxSettlement::Refuse(refusal.clone()),
        }
    }
}

fn principal(user: u8) -> Principal {
    Principal::from(["alice", "b\"}o{b", "ä"][usize::from(user)])
}

struct World {
    backend: Backend,
    handles: Vec<Arc<dyn DeliveryLedger>>,
    model: Model,
    listed: Vec<Vec<OutboxEntry>>,
    now: Timestamp,
}

impl World {
    async fn new(backend: Backend) -> Self {
        Self {
            handles: backend.open().await,
            backend,
            model: Model::default(),
            listed: vec![Vec::new(); WORKERS],
            now: Timestamp::from_secs(BEGIN),
        }
    }

    fn ledger(&self, worker: usize) -> Arc<dyn DeliveryLedger> {
        Arc::clone(&self.handles[worker % self.handles.len()])
    }

    async fn step(&mut self, op: Op) -> Checked {
        self.now = self.now + std::time::Duration::from_secs(1);
        match op {
            Op::Write { to, commits } => self.write(&to, commits).await?,
            Op::List { worker, limit } => {
                let listed = self.ledger(worker).outbox(limit).await.unwrap();
                let first: Vec<_> = self.model.waiting.values().take(limit).cloned().collect();
                prop_assert_eq!(&listed, &first);
                self.listed[worker] = listed;
            }
            Op::Settle { worker, entries } => self.settle(worker, &entries).await?,
            Op::Retry(number) => {
                let seq = self.model.any_seq(number);
                let known = self.model.refused.remove(&seq);
                let retried = self.ledger(number).retry_outbox(seq).await.unwrap();
                prop_assert_eq!(retried, known.is_some());
                let entry = known.map(|(entry, ..)| (seq, entry));
                self.model.waiting.extend(entry);
            }
            Op::Drop(number) => {
                let seq = self.model.any_seq(number);
                let known = self.model.refused.remove(&seq).is_some();
                let dropped = self.ledger(number).drop_outbox(seq).await.unwrap();
                prop_assert_eq!(dropped, known);
            }
            Op::Erase(user) => {
                let ledger = self.ledger(user.into());
                ledger.erase(&principal(user), &[], self.now).await.unwrap();
                self.model.erase(user);
            }
            Op::Restart => {
                self.handles = self.backend.open().await;
                self.listed = vec![Vec::new(); WORKERS];
            }
        }
        self.compare().await
    }

    async fn write(&mut self, to: &[Option<u8>], commits: bool) -> Checked {
        let broadcasts: Vec<_> = to
            .iter()
            .map(|user| match user {
                Some(user) => Broadcast::to(Audience::User(principal(*user)), Message::new("x")),
                None => Broadcast::to(Audience::All, Message::new("x")),
            })
            .collect();
        self.backend.write(&broadcasts, commits).await;
        let listed = self.ledger(0).outbox(ALL).await.unwrap();
        let known = self.model.seqs.iter().max().copied();
        let fresh: Vec<_> = listed
            .into_iter()
            .filter(|entry| Some(entry.seq) > known)
            .collect();
        prop_assert_eq!(fresh.len(), if commits { to.len() } else { 0 });
        for (entry, broadcast) in fresh.into_iter().zip(&broadcasts) {
            let written = broadcast.outbox_statement(OutboxDialect::SQLITE);
            let [audience, message, _] = &written.parameters;
            let parsed = |text: &str| serde_json::from_str::<Value>(text).unwrap();
            prop_assert_eq!(parsed(&entry.audience), parsed(audience));
            prop_assert_eq!(parsed(&entry.message), parsed(message));
            self.model.seqs.push(entry.seq);
            self.model.waiting.insert(entry.seq, entry);
        }
        Ok(())
    }

    async fn settle(&mut self, worker: usize, entries: &[(usize, How)]) -> Checked {
        let listed = &self.listed[worker];
        if listed.is_empty() {
            return Ok(());
        }
        // Of two equal keys in one call either may be the first.
        let (mut seqs, mut keys, mut ids) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        let mut settling = Vec::new();
        for (which, how) in entries {
            let entry = &listed[which % listed.len()];
            let opened = self.model.opened.len();
            let with = match how {
                How::Open(key) => Settling::Open(entry.id, *key),
                How::OpenAgain(number) if opened > 0 => {
                    let id = self.model.opened.iter().nth(number % opened);
                    Settling::Open(*id.unwrap(), None)
                }
                How::OpenAgain(_) => continue,
                How::Refuse(code) => {
                    let code = format!("code_{code}");
                    Settling::Refuse(OutboxRefusal::new(code, "a detail"))
                }
            };
            let is_distinct = match &with {
                Settling::Open(id, key) => {
                    key.is_none_or(|(key, _)| keys.insert(key)) && ids.insert(*id)
                }
                Settling::Refuse(_) => true,
            };
            if is_distinct && seqs.insert(entry.seq) {
                settling.push((entry.seq, with));
            }
        }
        let settlements: Vec<_> = settling
            .iter()
            .map(|(seq, with)| (*seq, with.settlement()))
            .collect();
        let ledger = self.ledger(worker);
        let settled = ledger.settle_outbox(&settlements, self.now).await.unwrap();
        let expected: Vec<_> = settling
            .iter()
            .map(|(seq, with)| self.model.settle(*seq, with, self.now))
            .collect();
        prop_assert_eq!(settled, expected);
        Ok(())
    }

    /// Compares all that is visible, by any handle.
    async fn compare(&self) -> Checked {
        let model = &self.model;
        for ledger in &self.handles {
            let waiting = ledger.outbox(ALL).await.unwrap();
            let expected: Vec<_> = model.waiting.values().cloned().collect();
            prop_assert_eq!(waiting, expected);
            let refused = ledger.refused_outbox(ALL).await.unwrap();
            let refused = refused
                .into_iter()
                .map(|one| (one.entry, one.refusal, one.refused_at));
            let expected: Vec<_> = model.refused.values().cloned().collect();
            prop_assert_eq!(refused.collect::<Vec<_>>(), expected);
            let stats = ledger.outbox_stats().await.unwrap();
            let expected = OutboxStats::new(model.waiting.len() as u64, model.refused.len() as u64);
            prop_assert_eq!(stats, expected);
            let underway = ledger.underway(ALL, self.now).await.unwrap();
            let underway: BTreeSet<_> = underway.iter().map(|status| status.id).collect();
            prop_assert_eq!(&underway, &model.opened);
        }
        Ok(())
    }

    /// A worker settles what is left: nothing that was committed is lost.
    async fn finish(mut self) -> Checked {
        let entries = self.ledger(0).outbox(ALL).await.unwrap();
        let before = self.model.opened.len();
        let ids: BTreeSet<_> = entries.iter().map(|entry| entry.id).collect();
        let known = ids.intersection(&self.model.opened).count();
        self.listed[0] = entries;
        let all: Vec<_> = (0..self.listed[0].len())
            .map(|number| (number, How::Open(None)))
            .collect();
        self.settle(0, &all).await?;
        prop_assert!(self.model.waiting.is_empty());
        prop_assert_eq!(self.model.opened.len(), before + ids.len() - known);
        self.compare().await
    }
}

fn check(cases: u32, backend: impl Fn() -> Backend) {
    let config = Config::default();
    let config = Config {
        cases: cases * config.cases / 256,
        failure_persistence: None,
        max_shrink_iters: 5_000,
        ..config
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let run = |steps: Vec<Op>| {
        runtime.block_on(async {
            let mut world = World::new(backend()).await;
            for step in steps {
                world.step(step).await?;
            }
            world.finish().await
        })
    };
    if let Err(error) = TestRunner::new(config).run(&ops(), run) {
        panic!("{error}");
    }
}

#[test]
fn an_applications_file_does_what_the_model_does() {
    check(30, || Backend::Sqlite(ApplicationFile::new()));
}

#[test]
fn postgres_does_what_the_model_does() {
    if let Some(_server) = Schema::fresh() {
        check(8, || Backend::Postgres(Schema::fresh().unwrap()));
    }
}
