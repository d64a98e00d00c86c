//! The Lua scripts: a file for each subject, of which each operation is a script with what it needs. Each operation is atomic.

use std::sync::OnceLock;

use redis::Cmd;

use super::needed::needed;
use crate::clock::Timestamp;

/// One operation.
pub(super) struct Operation {
    /// The text of its subject, behind the shared parts.
    parts: &'static [&'static str],
    name: &'static str,
    script: OnceLock<Script>,
}

/// What an operation needs of its parts, and a call of it.
struct Script {
    source: String,
    hash: String,
}

impl Script {
    fn new(parts: &[&str], operation: &str) -> Self {
        let needed = needed(&parts.join("\n"), operation);
        let source = format!("{needed}\nreturn operations[table.remove(ARGV, 1)]()");
        let hash = redis::Script::new(&source).get_hash().to_owned();
        Self { source, hash }
    }
}

impl Operation {
    fn script(&self) -> &Script {
        self.script
            .get_or_init(|| Script::new(self.parts, self.name))
    }

    /// The call by the script's hash, which the server knows after the first call.
    pub(super) fn by_hash(&self, namespace: &str, args: &Args) -> Cmd {
        self.call("EVALSHA", &self.script().hash, namespace, args)
    }

    /// The call with the script's text, which the server caches.
    pub(super) fn whole(&self, namespace: &str, args: &Args) -> Cmd {
        self.call("EVAL", &self.script().source, namespace, args)
    }

    fn call(&self, command: &str, script: &str, namespace: &str, args: &Args) -> Cmd {
        let mut cmd = redis::cmd(command);
        // Two keys that never exist. While a cluster moves their slot, the keys that a script builds may be on either of
        // two nodes. With two keys both nodes refuse the script (TRYAGAIN), so that none runs on a part of the data.
        let nothing = format!("{namespace}:nothing");
        cmd.arg(script).arg(2).arg(namespace).arg(nothing);
        cmd.arg(self.name);
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
    pub(super) fn and(mut self, others: Self) -> Self {
        self.0.extend(others.0);
        self
    }

    pub(super) const fn len(&self) -> usize {
        self.0.len()
    }

    #[must_use]
    pub(super) fn number(self, value: impl ToString) -> Self {
        self.with(value.to_string())
    }

    #[must_use]
    pub(super) fn time(self, time: Timestamp) -> Self {
        self.number(time.as_millis())
    }

    /// A time, or an empty value.
    #[must_use]
    pub(super) fn time_or_nothing(self, time: Option<Timestamp>) -> Self {
        self.with(time.map_or_else(String::new, |time| time.as_millis().to_string()))
    }
}

macro_rules! scripts {
    ($($parts:ident($($part:literal),+) { $($operation:ident = $name:literal,)+ })+) => {$(
        static $parts: &[&str] = &[$(include_str!(concat!("lua/", $part, ".lua"))),+];
        $(pub(super) static $operation: Operation = Operation {
            parts: $parts,
            name: $name,
            script: OnceLock::new(),
        };)+
    )+
        /// The parts and operations of each subject.
        #[cfg(test)]
        static ALL: &[(&[&str], &[&str])] = &[$(($parts, &[$($name),+])),+];
    };
}

scripts! {
    SERVER("common", "server") {
        INSPECT = "inspect",
        BEGIN = "begin",
        TIME = "time",
    }
    BROADCASTS("common", "ledger", "broadcasts") {
        OPEN = "open",
        EXPANDABLE = "expandable",
        ENQUEUE = "enqueue",
        CANCEL = "cancel",
        HOLD = "hold",
        EXPIRE = "expire",
        PULL = "pull",
        UNDERWAY = "underway",
        LIST = "list",
        PRUNE = "prune",
    }
    ERASING("common", "ledger", "erase") {
        AUDIENCES = "audiences",
        ERASE = "erase",
    }
    CLAIMS("common", "ledger", "claims") {
        LAPSE = "lapse",
        HEADS = "heads",
        CLAIM = "claim",
        SETTLE = "settle",
        NEXT_DUE = "next_due",
        STATS = "stats",
    }
    WORKERS("common", "ledger", "workers") {
        ENLIST = "enlist",
        BEAT = "beat",
        RESCUE = "rescue",
        HAS_LEASED = "has_leased",
    }
    ORIGINS("common", "ledger", "origins") {
        PAUSE = "pause",
        TALLY = "tally",
        PRUNE_ORIGINS = "prune_origins",
    }
    SUBSCRIPTIONS("common", "subscriptions") {
        UPSERT = "upsert",
        APPLY = "apply",
        PURGE = "purge",
        ROWS = "rows",
        OWNED = "owned",
        WALK = "walk",
        WALK_BOTH = "walk_both",
        NUMBERS = "numbers",
        TAGGED = "tagged",
        PUT = "put",
        UNREACHABLE = "unreachable",
    }
    SCHEDULES("common", "ledger", "schedules") {
        PUT_SCHEDULE = "put_schedule",
        REMOVE_SCHEDULES = "remove_schedules",
        REMOVE_UNCHANGED_SCHEDULE = "remove_unchanged_schedule",
        MOVE_SCHEDULES = "move_schedules",
        DUE_SCHEDULES = "due_schedules",
        FIRE = "fire",
        NEXT_FIRE = "next_fire",
        RECORD_RUN = "record_run",
        RECORD_DAYS = "record_days",
    }
    VAPID_KEYS("common", "vapid_keys") {
        LIST_KEYS = "list",
        INSERT_FIRST_KEY = "insert_first",
        INSERT_KEY = "insert",
        REPLACE_KEY = "replace",
        REMOVE_KEY = "remove",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_is_called_and_there() {
        for (parts, names) in ALL {
            let source = parts.join("\n");
            let defined: Vec<_> = source
                .lines()
                .filter_map(|line| {
                    line.strip_prefix("function operations.")?
                        .strip_suffix("()")
                })
                .collect();
            assert_eq!(defined, *names);
        }
    }

    /// `needed` cuts scripts by lines that are not indented, and finds names between other characters.
    #[test]
    fn scripts_are_written_so_that_they_can_be_cut() {
        for (parts, _) in ALL {
            for line in parts.iter().flat_map(|part| part.lines()) {
                let begins = ["local ", "function ", "end", "--", " ", "}", ")"];
                assert!(
                    line.is_empty() || begins.iter().any(|begin| line.starts_with(begin)),
                    "{line}"
                );
                assert!(
                    !line.starts_with("local ") || !line.ends_with(','),
                    "{line}"
                );
                let code = line.split("--").next().unwrap_or_default();
                for (place, _) in code.match_indices("..") {
                    if code
                        .get(place..)
                        .is_some_and(|rest| rest.starts_with("..."))
                    {
                        continue;
                    }
                    let around = code.get(place - 1..place + 3).unwrap_or_default();
                    assert_eq!(around, " .. ", "{line}");
                }
            }
        }
    }

    /// What ends, removes or postpones something runs on a full server, whichever command it happens to write first. An
    /// operation that is not named here adds data, only reads, or begins with a removal in any case.
    #[test]
    fn what_frees_memory_begins_with_a_write_that_needs_none() {
        const EVEN_WHEN_FULL: [&str; 23] = [
            "begin",
            "expandable",
            "cancel",
            "hold",
            "expire",
            "pull",
            "prune",
            "erase",
            "lapse",
            "heads",
            "claim",
            "settle",
            "next_due",
            "enlist",
            "beat",
            "rescue",
            "pause",
            "tally",
            "apply",
            "purge",
            "move_schedules",
            "record_run",
            "record_days",
        ];
        let mut begins = Vec::new();
        for (parts, names) in ALL {
            let source = parts.join("\n");
            for name in *names {
                let start = format!("function operations.{name}()\n");
                let (_, body) = source.split_once(&start).unwrap();
                if body.trim_start().starts_with("even_when_full()\n") {
                    begins.push(*name);
                }
            }
        }
        assert_eq!(begins, EVEN_WHEN_FULL);
    }

    /// A cluster, and a user whose rights are `~{prefix}*`, refuse keys that begin otherwise.
    #[test]
    fn every_key_begins_with_the_namespace() {
        for (parts, _) in ALL {
            let source = parts.join("\n");
            let code = source
                .lines()
                .filter(|line| !line.trim_start().starts_with("--"));
            for line in code {
                for (place, _) in line.match_indices("call('") {
                    let call = line.get(place + 6..).unwrap_or_default();
                    let key = call.split_once(", ").map_or("", |(_, key)| key);
                    assert!(!key.starts_with('\''), "{line}");
                }
                assert!(!line.contains("KEYS[2]"), "{line}");
            }
        }
        assert_eq!(ALL.len(), 9);
    }

    #[test]
    fn no_script_asks_for_the_time_but_those_that_answer_it() {
        for (parts, names) in ALL {
            let source = parts.join("\n");
            let asks = source.contains("call('TIME'");
            let answers = names.contains(&"time") || names.contains(&"beat");
            assert_eq!(asks, answers, "{names:?}");
        }
    }
}
