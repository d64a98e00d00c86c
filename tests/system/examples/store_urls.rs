//! `STORE_URL` as users write it: accepted, or refused by name. Never another file.

use std::path::Path;

use super::store::StoreUrl;

#[track_caller]
fn refused(url: &str) -> String {
    match StoreUrl::parse(url) {
        Ok(taken) => panic!("{url} is taken: {taken:?}"),
        Err(why) => why,
    }
}

#[test]
fn each_store_is_recognised() {
    for memory in ["memory:", "memory", "memory://", "MEMORY:"] {
        assert!(StoreUrl::parse(memory) == Ok(StoreUrl::Memory), "{memory}");
    }
    for url in [
        "postgres://u:p@h/d?sslmode=require",
        "postgresql://h/d",
        "Postgres://h/d",
    ] {
        assert!(
            StoreUrl::parse(url) == Ok(StoreUrl::Postgres(url.to_owned())),
            "{url}"
        );
    }
    for url in [
        "redis://h",
        "rediss://u:p@h/1",
        "REDISS://h",
        "valkey://h",
        // The error of these is up to their store.
        "redis-sentinel://h",
        "redis+unix:///s",
        "unix:///s",
    ] {
        assert!(
            StoreUrl::parse(url) == Ok(StoreUrl::Redis(url.to_owned())),
            "{url}"
        );
    }
}

#[test]
fn an_sqlite_file_is_exactly_the_named_one() {
    let folder = tempfile::tempdir().unwrap();
    let there = folder.path().join("there.db");
    std::fs::write(&there, "").unwrap();
    let there = there.to_str().unwrap();
    for (url, file) in [
        ("sqlite://web-push.db", "web-push.db"),
        ("sqlite:web-push.db", "web-push.db"),
        ("SQLite:///var/lib/push.db", "/var/lib/push.db"),
        ("sqlite:/var/lib/push.db", "/var/lib/push.db"),
        ("sqlite://a b/\u{e4}.db", "a b/\u{e4}.db"),
        ("sqlite://100%25%20%3F%23%C3%A4.db", "100% ?#\u{e4}.db"),
        ("sqlite://x.db?mode=rwc&cache=private&", "x.db"),
        ("sqlite://x.db?immutable=0&nolock=0", "x.db"),
        ("sqlite://x.db?", "x.db"),
        (&format!("sqlite://{there}?mode=rw"), there),
    ] {
        let expected = StoreUrl::Sqlite(Path::new(file).to_owned());
        assert!(StoreUrl::parse(url) == Ok(expected), "{url}");
    }
}

#[test]
fn an_unknown_part_is_named() {
    for (url, named) in [
        ("sqlite://x.db?mode=ro", "mode"),
        ("sqlite://x.db?mode=memory", "mode"),
        ("sqlite://no/such/file.db?mode=rw", "no/such/file.db"),
        ("sqlite://x.db?cache=shared", "cache"),
        ("sqlite://x.db?immutable=1", "immutable"),
        ("sqlite://x.db?vfs=unix-none", "vfs"),
        ("sqlite://x.db?mode", "mode"),
        ("sqlite://what?.db", "%3F"),
        ("sqlite://x.db#1", "%23"),
        ("sqlite://100%.db", "%25"),
        ("sqlite://100%+1.db", "%25"),
        ("sqlite://%ff.db", "%25"),
        ("sqlite::memory:", "memory:"),
        ("sqlite://:memory:", "memory:"),
        ("sqlite:///:memory:?cache=shared", "memory:"),
        ("sqlite://", "no file"),
        ("sqlite:", "no file"),
        ("sqlite://?mode=rwc", "no file"),
        ("sqlite://file:x.db", "no file"),
        ("memory:x", "memory:"),
        ("postgresql+asyncpg://u:hunter2@h/d", "postgresql+asyncpg"),
        ("sqlite+aiosqlite:///x.db", "sqlite+aiosqlite"),
        ("\"postgres://u:hunter2@h/d\"", "quotation marks"),
        ("'sqlite://x.db'", "quotation marks"),
        ("postgres://", "nothing follows"),
        ("postgres:hunter2@h/d", "none of"),
        ("mysql://u:hunter2@h/d", "none of"),
        ("hunter2", "none of"),
        ("/var/lib/hunter2.db", "none of"),
        ("", "none of"),
    ] {
        let why = refused(url);
        assert!(why.contains(named), "{url}: {why}");
        assert!(!why.contains("hunter2"), "{why}");
    }
}
