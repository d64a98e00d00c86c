//! The changes that scripts of Redis make.
//!
//! `MONITOR` shows each command in the order in which the server runs them, and after a script those that it calls. No other
//! client sees a script's intermediate states: what it has left of a row is compared with what it found.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::Ipv4Addr;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tower_web_push::store::redis_rs;

use super::{Event, Lives, Row};
use crate::replicas::world::World;
use crate::support::redis_client;

/// The argument of the command that ends the recording.
const END: &str = "the end of the history";
/// The length of a broadcast's id.
const ID_LEN: usize = 16;

/// A broadcast and a recipient.
type Of = (Vec<u8>, Vec<u8>);

/// A connection that watches a server.
pub(crate) struct Monitor(JoinHandle<History>);

impl Monitor {
    /// Records from now on.
    pub(super) async fn start(world: &World) -> Self {
        let address = (Ipv4Addr::LOCALHOST, world.database.port());
        let mut stream = BufReader::new(TcpStream::connect(address).await.unwrap());
        stream.write_all(b"MONITOR\r\n").await.unwrap();
        let mut line = Vec::new();
        stream.read_until(b'\n', &mut line).await.unwrap();
        assert_eq!(line, b"+OK\r\n");
        Self(tokio::spawn(async move {
            let mut history = History::default();
            loop {
                line.clear();
                let read = stream.read_until(b'\n', &mut line).await.unwrap();
                assert!(read > 0, "the server has closed the connection");
                let has_more = history
                    .read(&line)
                    .unwrap_or_else(|error| panic!("{error}"));
                if !has_more {
                    return history;
                }
            }
        }))
    }

    /// Returns what was recorded until now.
    pub(super) async fn lives(self, world: &World) -> Lives<Of> {
        let mut connection = redis_client::connect(&world.database.url()).await;
        let mut echo = redis_rs::cmd("ECHO");
        let _: String = echo.arg(END).query_async(&mut connection).await.unwrap();
        self.0.await.unwrap().lives
    }
}

#[derive(Default)]
pub(crate) struct History {
    rows: HashMap<Of, Places>,
    dead: HashSet<i64>,
    script: Script,
    lives: Lives<Of>,
}

/// The script whose commands are read.
#[derive(Default)]
struct Script {
    number: u64,
    /// In milliseconds.
    moment: i64,
    namespace: Vec<u8>,
    operation: Vec<u8>,
    /// Rows that it was asked to settle, with these tokens.
    settled: HashSet<(Of, i64)>,
    /// The rows that it has changed, as it found them.
    found: HashMap<Of, Places>,
}

impl History {
    /// Reads a line of `MONITOR`. Returns whether others may follow.
    fn read(&mut self, line: &[u8]) -> Result<bool, String> {
        let mut command = Command::parse(line);
        let name = command.next().unwrap_or_default().to_ascii_lowercase();
        if command.is_of_script {
            self.apply(&name, command);
            return Ok(true);
        }
        self.end_script()?;
        match name.as_slice() {
            b"evalsha" | b"eval" => self.begin_script(command),
            b"echo" => return Ok(command.next().as_deref() != Some(END.as_bytes())),
            _ => {}
        }
        Ok(true)
    }

    /// Reads a call: the script, the number of its keys, the keys, the operation and its arguments.
    fn begin_script(&mut self, mut call: Command<'_>) {
        self.script.moment = call.moment;
        self.script.namespace = call.nth(2).unwrap_or_default();
        self.script.operation = call.nth(1).unwrap_or_default();
        if self.script.operation == b"settle" {
            let arguments: Vec<_> = call.skip(1).collect();
            for row in arguments.as_chunks().0 {
                let [broadcast, recipient, fence, _] = row;
                let of = (broadcast.clone(), recipient.clone());
                self.script.settled.insert((of, number(fence)));
            }
        }
    }

    /// Applies a command of the script to the rows.
    fn apply(&mut self, name: &[u8], mut command: Command<'_>) {
        if matches!(name, b"unlink" | b"del") {
            for key in command {
                if let Some(key) = Key::parse(&self.script.namespace, &key) {
                    self.remove_range(&key, 0, -1);
                }
            }
            return;
        }
        let key = command.next().unwrap_or_default();
        if name == b"hset" && key == [&self.script.namespace, b":workers".as_slice()].concat() {
            let workers = command.collect::<Vec<_>>();
            for [id, state] in workers.as_chunks().0 {
                match state == b"dead" {
                    true => drop(self.dead.insert(number(id))),
                    false => {
                        let is_new = self.script.operation == b"enlist";
                        self.lives.note_sign(number(id), is_new, self.script.moment);
                    }
                }
            }
            return;
        }
        let Some(key) = Key::parse(&self.script.namespace, &key) else {
            return;
        };
        match name {
            b"zadd" => self.add(&key, command),
            b"zrem" | b"hdel" => {
                for member in command {
                    self.change(key.row(member), |row| row.remove(&key));
                }
            }
            b"zremrangebyrank" => {
                let [first, last] = [(); 2].map(|()| number(&command.next().unwrap()));
                self.remove_range(&key, first, last);
            }
            b"hset" => {
                let arguments: Vec<_> = command.collect();
                for [field, value] in arguments.as_chunks().0 {
                    self.change(key.row(field.clone()), |row| row.set_state(value));
                }
            }
            _ => {
                let reads: &[&[u8]] = &[
                    b"exists",
                    b"hexists",
                    b"hget",
                    b"hmget",
                    b"zcard",
                    b"zcount",
                    b"zmscore",
                    b"zrange",
                    b"zrangebyscore",
                    b"zrevrange",
                    b"zscore",
                ];
                assert!(reads.contains(&name), "{} of {key:?}", name.escape_ascii());
            }
        }
    }

    fn add(&mut self, key: &Key, command: Command<'_>) {
        let mut command = command.peekable();
        let mut conditions = HashSet::new();
        while let Some(condition) =
            command.next_if(|word| word.first().is_some_and(u8::is_ascii_alphabetic))
        {
            conditions.insert(condition.to_ascii_lowercase());
        }
        let has = |condition: &[u8]| conditions.contains(condition);
        let (is_new, is_known, is_less) = (has(b"nx"), has(b"xx"), has(b"lt"));
        assert_eq!(
            conditions.len(),
            [is_new, is_known, is_less]
                .map(usize::from)
                .iter()
                .sum::<usize>(),
            "{conditions:?}"
        );
        while let (Some(score), Some(member)) = (command.next(), command.next()) {
            let score = number(&score);
            self.change(key.row(member), |row| {
                let old = row.score(key);
                let is_met = match old {
                    None => !is_known,
                    Some(old) => !is_new && (!is_less || score < old),
                };
                if is_met {
                    row.put(key, score);
                }
            });
        }
    }

    /// Removes the members of these ranks, counted from the end if they are below 0.
    fn remove_range(&mut self, key: &Key, first: i64, last: i64) {
        let members = self.rows.iter().filter(|(of, _)| key.is_of(of));
        let mut members: Vec<_> = members
            .filter_map(|(of, row)| Some((row.score(key)?, of.clone())))
            .collect();
        members.sort_unstable();
        let len = i64::try_from(members.len()).unwrap();
        let from_start = |rank: i64| if rank < 0 { len + rank } else { rank };
        for (rank, (_, of)) in (0..).zip(members) {
            if (from_start(first)..=from_start(last)).contains(&rank) {
                self.change(of, |row| row.remove(key));
            }
        }
    }

    fn change(&mut self, of: Of, change: impl FnOnce(&mut Places)) {
        let row = self.rows.entry(of.clone()).or_default();
        self.script.found.entry(of).or_insert_with(|| row.clone());
        change(row);
    }

    /// Notes what the script has done to each row.
    fn end_script(&mut self) -> Result<(), String> {
        let script = std::mem::take(&mut self.script);
        self.script.number = script.number + 1;
        for (of, before) in &script.found {
            self.note(of, before, &script).map_err(|error| {
                let (broadcast, recipient) = (of.0.escape_ascii(), of.1.escape_ascii());
                let operation = script.operation.escape_ascii();
                format!("{operation} of {recipient} of {broadcast}: {error}")
            })?;
        }
        Ok(())
    }

    fn note(&mut self, of: &Of, places: &Places, script: &Script) -> Result<(), String> {
        let (before, after) = (places.row()?, self.rows[of].row()?);
        if after.is_none() {
            self.rows.remove(of);
        }
        if before == after {
            return Ok(());
        }
        let owner = places.owned;
        let event = Event {
            moment: script.moment,
            owner_is_dead: owner.is_some_and(|owner| self.dead.contains(&owner)),
            is_by_token: script.settled.contains(&(of.clone(), places.fence)),
            before,
            after,
        };
        self.lives.note(of, &event, script.number)
    }
}

/// Where a row is, in the words of `ledger.lua`.
#[derive(Clone, Debug, Default)]
struct Places {
    /// Its score in the `q` of each origin.
    queues: BTreeMap<Vec<u8>, i64>,
    postponed: Option<i64>,
    leased: Option<i64>,
    owned: Option<i64>,
    /// The token and the number of attempts.
    state: Option<(i64, i64)>,
    /// The last token that was not 0.
    fence: i64,
}

impl Places {
    /// Returns `None` if the row is not there.
    fn row(&self) -> Result<Option<Row>, String> {
        let scores = self.queues.values().copied();
        let scores: Vec<_> = scores.chain(self.postponed).chain(self.leased).collect();
        let (fence, attempt) = self.state.unwrap_or_default();
        let at = match *scores {
            [] if self.owned.is_none() => return Ok(None),
            [at] => at,
            _ => return Err(format!("it is in one place: {self:?}")),
        };
        if self.leased.is_some() && fence == 0 {
            return Err(format!("a leased row has a token: {self:?}"));
        }
        if self.leased.is_none() && self.owned.is_some() {
            return Err(format!("no other row has an owner: {self:?}"));
        }
        if self.postponed.is_some() && fence != 0 {
            return Err(format!("the token of a postponed row is spent: {self:?}"));
        }
        Ok(Some(Row {
            is_leased: fence != 0,
            is_ready: !self.queues.is_empty(),
            at,
            fence: self.fence,
            attempt,
            worker: self.owned.map(|owner| owner.try_into().unwrap()),
        }))
    }

    fn score(&self, key: &Key) -> Option<i64> {
        match key {
            Key::Leased => self.leased,
            Key::Owned => self.owned,
            Key::Queue(origin, _) => self.queues.get(origin).copied(),
            Key::Postponed(_) => self.postponed,
            Key::States(_) => self.state.map(|(fence, _)| fence),
        }
    }

    fn put(&mut self, key: &Key, score: i64) {
        match key {
            Key::Leased => self.leased = Some(score),
            Key::Owned => self.owned = Some(score),
            Key::Queue(origin, _) => drop(self.queues.insert(origin.clone(), score)),
            Key::Postponed(_) => self.postponed = Some(score),
            Key::States(_) => panic!("{key:?} is no sorted set"),
        }
    }

    fn remove(&mut self, key: &Key) {
        match key {
            Key::Leased => self.leased = None,
            Key::Owned => self.owned = None,
            Key::Queue(origin, _) => drop(self.queues.remove(origin)),
            Key::Postponed(_) => self.postponed = None,
            Key::States(_) => self.state = None,
        }
    }

    fn set_state(&mut self, value: &[u8]) {
        let mut parts = value.split(|octet| *octet == b':').map(number);
        let (fence, attempts) = (parts.next().unwrap(), parts.next().unwrap());
        self.state = Some((fence, attempts));
        if fence != 0 {
            self.fence = fence;
        }
    }
}

/// A key of the ledger with rows.
#[derive(Debug)]
enum Key {
    Leased,
    Owned,
    /// Of an origin and a broadcast.
    Queue(Vec<u8>, Vec<u8>),
    Postponed(Vec<u8>),
    States(Vec<u8>),
}

impl Key {
    /// Returns `None` for other keys.
    fn parse(namespace: &[u8], key: &[u8]) -> Option<Self> {
        let key = key.strip_prefix(namespace)?.strip_prefix(b":")?;
        Some(match key {
            b"leased" => Self::Leased,
            b"owned" => Self::Owned,
            [b'p', b':', broadcast @ ..] => Self::Postponed(broadcast.to_vec()),
            [b's', b':', broadcast @ ..] => Self::States(broadcast.to_vec()),
            [b'q', b':', rest @ ..] => {
                let (origin, broadcast) = rest.split_at(rest.len() - ID_LEN);
                Self::Queue(origin.to_vec(), broadcast.to_vec())
            }
            _ => return None,
        })
    }

    /// Returns the row of a member or a field.
    fn row(&self, member: Vec<u8>) -> Of {
        match self {
            Self::Queue(_, broadcast) | Self::Postponed(broadcast) | Self::States(broadcast) => {
                (broadcast.clone(), member)
            }
            Self::Leased | Self::Owned => {
                let (broadcast, recipient) = member.split_at(ID_LEN);
                (broadcast.to_vec(), recipient.to_vec())
            }
        }
    }

    /// Whether it may have this row.
    fn is_of(&self, (broadcast, _): &Of) -> bool {
        match self {
            Self::Queue(_, of) | Self::Postponed(of) | Self::States(of) => broadcast == of,
            Self::Leased | Self::Owned => true,
        }
    }
}

/// A line of `MONITOR`, such as `+1700000000.123456 [0 127.0.0.1:6379] "zadd" "key" "1" "\x00"`, and an iterator over its
/// words.
struct Command<'a> {
    /// In milliseconds.
    moment: i64,
    is_of_script: bool,
    words: &'a [u8],
}

impl<'a> Command<'a> {
    fn parse(line: &'a [u8]) -> Self {
        let behind = b"] \"";
        let place = line.windows(behind.len()).position(|part| part == behind);
        let (head, words) = line.split_at(place.expect("each line has a client"));
        let head = str::from_utf8(head).unwrap();
        let (seconds, client) = head.trim_start_matches('+').split_once(" [").unwrap();
        let (seconds, micros) = seconds.split_once('.').unwrap();
        let [seconds, micros] = [seconds, micros].map(|part| number(part.as_bytes()));
        Self {
            moment: seconds * 1_000 + micros / 1_000,
            is_of_script: client.ends_with(" lua"),
            words,
        }
    }
}

impl Iterator for Command<'_> {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        let start = self.words.iter().position(|octet| *octet == b'"')? + 1;
        let mut octets = self.words[start..].iter().copied();
        let mut word = Vec::new();
        loop {
            match octets.next().expect("a word ends with a quote") {
                b'"' => break,
                b'\\' => word.push(match octets.next().unwrap() {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'a' => 7,
                    b'b' => 8,
                    b'x' => {
                        let digits = [octets.next().unwrap(), octets.next().unwrap()];
                        u8::from_str_radix(str::from_utf8(&digits).unwrap(), 16).unwrap()
                    }
                    quoted => quoted,
                }),
                octet => word.push(octet),
            }
        }
        self.words = &self.words[self.words.len() - octets.len()..];
        Some(word)
    }
}

/// Reads a whole number, in any form in which a score may be written.
fn number(text: &[u8]) -> i64 {
    let text = str::from_utf8(text).unwrap();
    #[expect(clippy::cast_possible_truncation, reason = "scores are whole numbers")]
    let read = |text: &str| text.parse::<f64>().map(|score| score as i64);
    text.parse().or_else(|_| read(text)).unwrap()
}

#[cfg(test)]
mod tests {
    use super::super::Step;
    use super::*;

    const OPEN: (&str, &[&str]) = (
        r#""open""#,
        &[r#""ZADD" "{p}:q:https://a:0123456789abcdef" "NX" "5" "\x00\"\n""#],
    );
    const CLAIM: (&str, &[&str]) = (
        r#""claim""#,
        &[
            r#""zrem" "{p}:q:https://a:0123456789abcdef" "\x00\"\n""#,
            r#""zadd" "{p}:leased" "900" "0123456789abcdef\x00\"\n""#,
            r#""zadd" "{p}:owned" "3" "0123456789abcdef\x00\"\n""#,
            r#""hset" "{p}:s:0123456789abcdef" "\x00\"\n" "7:1:https://a""#,
        ],
    );
    const REMOVED: &[&str] = &[
        r#""zrem" "{p}:leased" "0123456789abcdef\x00\"\n""#,
        r#""zrem" "{p}:owned" "0123456789abcdef\x00\"\n""#,
        r#""hdel" "{p}:s:0123456789abcdef" "\x00\"\n""#,
    ];

    /// Returns the steps of the only row in these scripts.
    fn steps(scripts: &[(&str, &[&str])]) -> Result<Vec<Step>, String> {
        let mut history = History::default();
        for (call, commands) in scripts {
            let call = format!(
                "+0.500999 [0 127.0.0.1:1] \"EVALSHA\" \"0\" \"2\" \"{{p}}\" \"{{p}}:nothing\" {call}\r\n"
            );
            history.read(call.as_bytes())?;
            for command in *commands {
                history.read(format!("+0.500999 [0 lua] {command}\r\n").as_bytes())?;
            }
        }
        let end = format!("+0.500999 [0 unix:/socket] \"echo\" \"{END}\"\r\n");
        assert!(!history.read(end.as_bytes())?);
        // No server was started.
        if let Some(claim) = history.lives.nameless.first() {
            return Err(format!("a claim names its worker: {claim:?}"));
        }
        let row = (b"0123456789abcdef".to_vec(), b"\x00\"\n".to_vec());
        assert!(history.lives.of.keys().eq([&row]));
        Ok(history.lives.of[&row].clone())
    }

    #[test]
    fn the_life_of_a_row_is_read_from_scripts() {
        let settled = r#""settle" "500" "0123456789abcdef" "\x00\"\n" "7" "accepted""#;
        let life = [Step::Written, Step::Claimed, Step::Finished];
        let finished = (settled, REMOVED);
        assert_eq!(steps(&[OPEN, CLAIM, finished]), Ok(life.to_vec()));
        let dead = r#""hset" "{p}:workers" "3" "dead""#;
        let taken = [
            r#""zadd" "{p}:leased" "XX" "LT" "450" "0123456789abcdef\x00\"\n""#,
            r#""zrem" "{p}:owned" "0123456789abcdef\x00\"\n""#,
        ];
        let rescue = (r#""rescue""#, &[dead, taken[0], taken[1]][..]);
        let lapse = (
            r#""lapse""#,
            &[
                REMOVED[0],
                REMOVED[1],
                r#""zadd" "{p}:q:https://a:0123456789abcdef" "450" "\x00\"\n""#,
            ][..],
        );
        let life = [
            Step::Written,
            Step::Claimed,
            Step::TakenFromTheDead,
            Step::BecameReady,
        ];
        assert_eq!(steps(&[OPEN, CLAIM, rescue, lapse]), Ok(life.to_vec()));
        // Not from one that lives, and not before the lease ends.
        assert!(steps(&[OPEN, CLAIM, (r#""rescue""#, &taken)]).is_err());
        assert!(steps(&[OPEN, CLAIM, lapse]).is_err());
    }

    #[test]
    fn a_row_is_removed_with_its_token_only() {
        let by_another = r#""settle" "500" "0123456789abcdef" "\x00\"\n" "6" "accepted""#;
        for by in [by_another, r#""lapse""#, r#""expire""#] {
            assert!(steps(&[OPEN, CLAIM, (by, REMOVED)]).is_err(), "{by}");
        }
    }

    #[test]
    fn a_row_is_in_one_place() {
        let (claim, commands) = CLAIM;
        for left_out in 0..commands.len() {
            let mut commands = commands.to_vec();
            commands.remove(left_out);
            assert!(steps(&[OPEN, (claim, &commands)]).is_err(), "{left_out}");
        }
        let settled = r#""settle" "500" "0123456789abcdef" "\x00\"\n" "7" "accepted""#;
        for left_out in 0..2 {
            let mut commands = REMOVED.to_vec();
            commands.remove(left_out);
            let finished = (settled, commands.as_slice());
            assert!(steps(&[OPEN, CLAIM, finished]).is_err(), "{left_out}");
        }
    }
}
