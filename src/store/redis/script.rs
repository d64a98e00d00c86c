//! The Lua scripts: each is one step that no other client sees half done.

use std::sync::LazyLock;

use redis::Cmd;

use crate::clock::Timestamp;

/// A script with what it shares with others before it.
pub(super) struct Script {
    source: String,
    hash: String,
}

impl Script {
    fn new(parts: &[&str]) -> Self {
        let source = format!("{COMMON}\n{}", parts.join("\n"));
        let hash = redis::Script::new(&source).get_hash().to_owned();
        Self { source, hash }
    }

    /// The call by its hash: what the server has seen before.
    pub(super) fn by_hash(&self, namespace: &str, args: &Args) -> Cmd {
        Self::call("EVALSHA", &self.hash, namespace, args)
    }

    /// The call with the whole text, which the server keeps.
    pub(super) fn whole(&self, namespace: &str, args: &Args) -> Cmd {
        Self::call("EVAL", &self.source, namespace, args)
    }

    fn call(command: &str, script: &str, namespace: &str, args: &Args) -> Cmd {
        let mut cmd = redis::cmd(command);
        // Two keys, neither of which ever exists: a cluster that is moving their slot has the keys that a script makes
        // on either of two nodes, and would send it to the one that has not got this key. Of two keys neither node
        // takes a script in that time (TRYAGAIN), so that none sees only a part of the data.
        let nothing = format!("{namespace}:nothing");
        cmd.arg(script).arg(2).arg(namespace).arg(nothing);
        for arg in &args.0 {
            cmd.arg(arg.as_slice());
        }
        cmd
    }
}

/// The arguments of a call.
#[derive(Clone, Default)]
pub(super) struct Args(Vec<Vec<u8>>);

impl Args {
    pub(super) fn at(now: Timestamp) -> Self {
        Self::default().time(now)
    }

    pub(super) fn push(&mut self, value: impl Into<Vec<u8>>) {
        self.0.push(value.into());
    }

    #[must_use]
    pub(super) fn with(mut self, value: impl Into<Vec<u8>>) -> Self {
        self.push(value);
        self
    }

    #[must_use]
    pub(super) fn number(self, value: impl ToString) -> Self {
        self.with(value.to_string())
    }

    #[must_use]
    pub(super) fn time(self, time: Timestamp) -> Self {
        self.number(time.as_millis())
    }

    /// A moment, or nothing.
    #[must_use]
    pub(super) fn time_or_nothing(self, time: Option<Timestamp>) -> Self {
        self.with(time.map_or_else(String::new, |time| time.as_millis().to_string()))
    }
}

macro_rules! lua {
    ($name:literal) => {
        include_str!(concat!("lua/", $name, ".lua"))
    };
}

macro_rules! scripts {
    ($($name:ident = $($part:expr),+;)*) => {
        $(pub(super) static $name: LazyLock<Script> = LazyLock::new(|| Script::new(&[$($part),+]));)*

        #[cfg(test)]
        static ALL: &[(&str, &LazyLock<Script>)] = &[$((stringify!($name), &$name)),*];
    };
}

const COMMON: &str = lua!("common");
const LEDGER: &str = lua!("ledger");
const OPENING: &str = lua!("open_broadcast");
const SUBSCRIPTIONS: &str = lua!("subscriptions");
const SCHEDULES: &str = lua!("schedules");

scripts! {
    INSPECT = lua!("inspect");
    BEGIN = lua!("begin");
    TIME = lua!("time");

    OPEN = LEDGER, OPENING, lua!("open");
    EXPANDABLE = LEDGER, lua!("expandable");
    ENQUEUE = LEDGER, lua!("enqueue");
    LAPSE = LEDGER, lua!("lapse");
    HEADS = LEDGER, lua!("heads");
    CLAIM = LEDGER, lua!("claim");
    SETTLE = LEDGER, lua!("settle");
    AUDIENCES = LEDGER, lua!("audiences");
    ERASE = LEDGER, lua!("erase");
    CANCEL = LEDGER, lua!("cancel");
    EXPIRE = LEDGER, lua!("expire");
    PRUNE = LEDGER, lua!("prune");
    PRUNE_ORIGINS = LEDGER, lua!("prune_origins");
    UNDERWAY = LEDGER, lua!("underway");
    NEXT_DUE = LEDGER, lua!("next_due");
    STATS = LEDGER, lua!("stats");
    PAUSE = LEDGER, lua!("pause");
    TALLY = lua!("tally");

    UPSERT = SUBSCRIPTIONS, lua!("upsert");
    APPLY = SUBSCRIPTIONS, lua!("apply");
    PURGE = SUBSCRIPTIONS, lua!("purge");
    ROWS = SUBSCRIPTIONS, lua!("rows");
    WALK = SUBSCRIPTIONS, lua!("walk");
    NUMBERS = SUBSCRIPTIONS, lua!("numbers");
    TAGGED = SUBSCRIPTIONS, lua!("tagged");

    VAPID_KEYS = lua!("vapid_keys");

    PUT_SCHEDULE = SCHEDULES, lua!("put_schedule");
    REMOVE_SCHEDULES = SCHEDULES, lua!("remove_schedules");
    MOVE_SCHEDULES = SCHEDULES, lua!("move_schedules");
    DUE_SCHEDULES = SCHEDULES, lua!("due_schedules");
    FIRE = LEDGER, OPENING, SCHEDULES, lua!("fire");
    NEXT_FIRE = SCHEDULES, lua!("next_fire");
    RECORD_RUN = lua!("record_run");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A cluster, and a user whose rights are `~{prefix}*`, refuse keys that begin otherwise.
    #[test]
    fn every_key_begins_with_the_namespace() {
        for (name, script) in ALL {
            let code = script
                .source
                .lines()
                .filter(|line| !line.trim_start().starts_with("--"));
            for line in code {
                for (place, _) in line.match_indices("call('") {
                    let call = line.get(place + 6..).unwrap_or_default();
                    let key = call.split_once(", ").map_or("", |(_, key)| key);
                    assert!(!key.starts_with('\''), "{name}: {line}");
                }
                assert!(!line.contains("KEYS[2]"), "{name}: {line}");
            }
        }
        assert!(ALL.len() > 30);
    }

    #[test]
    fn no_script_asks_for_the_time_but_the_one_that_answers_it() {
        for (name, script) in ALL {
            let asks = script.source.contains("call('TIME'");
            assert_eq!(asks, *name == "TIME", "{name}");
        }
    }
}
