//! The Flask and SQLite server: its three tables as SQLAlchemy creates them.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use rusqlite::{Connection, OpenFlags, Row as Columns};
use tower_web_push::clock::Timestamp;
use tower_web_push::import::{ImportedSubscription, RefusedRow};
use tower_web_push::schedule::{Daily, DailyTime, NotifyType};
use tower_web_push::subscription::{AuthSecret, Endpoint, Subscription, UaPublicKey};
use tower_web_push::vapid::{KeyId, VapidKey};

use super::{BoxError, Row, Rows, Source};

/// The number of rows read at a time.
const PAGE: u32 = 500;
const MOST_NOTES: usize = 32;

/// The subscriptions, ordered by endpoint, the newest of each endpoint first.
///
/// Copied to a temporary file when it is opened, which SQLite deletes: the other server can continue to write, and
/// its tables have no index for this order.
pub(crate) struct FromSqlite {
    copy: Connection,
    last: i64,
    /// An endpoint that may have more rows in the next page.
    open: Option<ImportedSubscription>,
    is_over: bool,
    keys: HashMap<i64, KeyId>,
    has_keys: bool,
    zone: TimeZone,
    /// The value of a null time.
    this_minute: DailyTime,
    bad_keys: Vec<RefusedRow>,
    notes: Vec<String>,
    more_notes: u64,
}

impl FromSqlite {
    /// Reads the keys and copies the subscriptions. `given` is a key that is not in the table.
    pub(crate) fn open(
        path: &str,
        given: Option<VapidKey>,
        zone: &str,
    ) -> Result<Source, BoxError> {
        let zone = TimeZone::get(zone).map_err(|_| format!("--zone: unknown zone: {zone}"))?;
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let copy = Connection::open_with_flags(path, flags)
            .map_err(|error| format!("--from: {path}: {error}"))?;
        copy.busy_timeout(Duration::from_secs(30))?;
        let mut from = Self {
            last: 0,
            open: None,
            is_over: false,
            keys: HashMap::new(),
            has_keys: false,
            this_minute: this_minute()?,
            bad_keys: Vec::new(),
            notes: Vec::new(),
            more_notes: 0,
            zone,
            copy,
        };
        // The file of another application lacks these tables or columns.
        from.copy.execute_batch(COPY).map_err(|error| {
            let why = match error {
                rusqlite::Error::SqlInputError { msg, .. } => msg,
                other => other.to_string(),
            };
            format!("--from: {path}: not a database of the Flask and SQLite server: {why}")
        })?;
        let mut keys = Vec::from_iter(given);
        keys.extend(from.read_keys()?);
        from.has_keys = !keys.is_empty();
        Ok(Source {
            keys,
            daily_sent_until: from.daily_sent_until()?,
            rows: Rows::Sqlite(Box::new(from)),
        })
    }

    /// The newest is the last: the one that pages subscribe with.
    fn read_keys(&mut self) -> Result<Vec<VapidKey>, BoxError> {
        let sql = "SELECT id, public_key, private_key FROM vapid_key ORDER BY id";
        let mut statement = self.copy.prepare(sql)?;
        let mut rows = statement.query([])?;
        let mut keys = Vec::new();
        while let Some(columns) = rows.next()? {
            let id: i64 = columns.get(0)?;
            let (public, private) = (text(columns, 1), text(columns, 2));
            let pair =
                VapidKey::parse_pair(private.unwrap_or_default(), &public.unwrap_or_default());
            match pair {
                Ok(key) => {
                    self.keys.insert(id, key.id());
                    keys.push(key);
                }
                Err(error) => {
                    let row = format!("vapid_key {id}");
                    self.bad_keys.push(RefusedRow::new(row, error));
                }
            }
        }
        Ok(keys)
    }

    /// Returns the time until which every daily notification was sent. A later run that did not finish is ignored: it
    /// is unknown how far it got, and a repeat is better than a loss.
    fn daily_sent_until(&mut self) -> Result<Option<Timestamp>, BoxError> {
        let sql = "SELECT prev_notify_end_time FROM settings ORDER BY id DESC LIMIT 1";
        let mut statement = self.copy.prepare(sql)?;
        let mut rows = statement.query([])?;
        let moment = rows.next()?.and_then(|columns| text(columns, 0));
        Ok(moment.and_then(|text| moment_of(&text, &self.zone)))
    }

    pub(crate) fn next_page(&mut self) -> Result<Option<Vec<Row>>, BoxError> {
        if self.is_over {
            return Ok(None);
        }
        let mut page: Vec<Row> = self.bad_keys.drain(..).map(Err).collect();
        let mut read = Vec::new();
        {
            let sql = "SELECT rowid, id, auth, created_date, endpoint, message, notify_time, notify_type, \
                       p256dh, vapid_key_id FROM temp.copy WHERE rowid > ?1 ORDER BY rowid LIMIT ?2";
            let mut statement = self.copy.prepare_cached(sql)?;
            let mut rows = statement.query((self.last, PAGE))?;
            while let Some(columns) = rows.next()? {
                self.last = columns.get(0)?;
                let name = format!("subscription {}", columns.get::<_, i64>(1)?);
                let row = self.row(columns, &name);
                read.push(row.map_err(|why| RefusedRow::new(name, why)));
            }
        }
        self.is_over = read.len() < PAGE as usize;
        for row in read {
            match row {
                Err(refused) => page.push(Err(refused)),
                Ok(row) => page.extend(self.join(row).map(Ok)),
            }
        }
        if self.is_over {
            page.extend(self.open.take().map(Ok));
        }
        Ok(Some(page))
    }

    /// Adds a row's daily notification to a newer row of the same endpoint. Returns a complete row.
    fn join(&mut self, row: ImportedSubscription) -> Option<ImportedSubscription> {
        let Some(newer) = self.open.as_mut() else {
            self.open = Some(row);
            return None;
        };
        if newer.subscription.endpoint() != row.subscription.endpoint() {
            return self.open.replace(row);
        }
        if !newer.subscription.same_keys(&row.subscription) {
            let name = |row: &ImportedSubscription| row.row.clone().unwrap_or_default();
            let note = format!(
                "{} has the endpoint of {}, which is newer and has other keys: those hold",
                name(&row),
                name(newer)
            );
            if self.notes.len() < MOST_NOTES {
                self.notes.push(note);
            } else {
                self.more_notes += 1;
            }
        }
        newer.daily.extend(row.daily);
        None
    }

    fn row(&self, columns: &Columns<'_>, name: &str) -> Result<ImportedSubscription, BoxError> {
        let required = |column| text(columns, column).ok_or("a column is null, or no text");
        let subscription = Subscription::new(
            Endpoint::parse(&required(4)?)?,
            UaPublicKey::parse(&required(8)?)?,
            AuthSecret::parse(&required(2)?)?,
        );
        let time = match text(columns, 6) {
            Some(time) => daily_time(&time).ok_or("notify_time is not HH:MM")?,
            None => self.this_minute.clone(),
        };
        let notify_type = match text(columns, 7) {
            Some(notify_type) => notify_type.parse()?,
            None => NotifyType::default(),
        };
        let message = text(columns, 5);
        let mut row = ImportedSubscription::new(subscription);
        row.daily = vec![Daily::new(notify_type, time, message.as_deref())?];
        row.created_at = text(columns, 3).and_then(|text| moment_of(&text, &self.zone));
        row.vapid_key = match columns.get::<_, Option<i64>>(9)? {
            Some(key) => {
                let key = self.keys.get(&key).copied();
                Some(key.ok_or("its vapid_key is not there, or cannot be read")?)
            }
            // The row belongs to the active key then.
            None if self.has_keys => None,
            None => return Err("the source has no VAPID key for it".into()),
        };
        row.row = Some(name.to_owned());
        Ok(row)
    }

    /// Returns notes about accepted rows.
    pub(crate) fn notes(&self) -> impl Iterator<Item = String> + '_ {
        let more = (self.more_notes > 0).then(|| format!("{} more like that", self.more_notes));
        self.notes.iter().cloned().chain(more)
    }
}

const COPY: &str = "CREATE TEMP TABLE copy AS SELECT id, auth, created_date, endpoint, message, notify_time, \
     notify_type, p256dh, vapid_key_id FROM main.subscription ORDER BY endpoint, created_date DESC, id DESC";

/// Returns a text if it is not empty.
fn text(columns: &Columns<'_>, column: usize) -> Option<String> {
    let text: Option<String> = columns.get(column).ok().flatten();
    text.filter(|text| !text.is_empty())
}

fn daily_time(text: &str) -> Option<DailyTime> {
    let (hour, minute) = text.split_once(':')?;
    let number = |text: &str| {
        let is_short = (1..=2).contains(&text.len());
        let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|_| is_short && is_number)
    };
    DailyTime::new(number(hour)?, number(minute)?).ok()
}

fn this_minute() -> Result<DailyTime, BoxError> {
    let now = jiff::Timestamp::try_from(SystemTime::now())?;
    let now = now.to_zoned(TimeZone::UTC);
    Ok(DailyTime::new(
        now.hour().unsigned_abs(),
        now.minute().unsigned_abs(),
    )?)
}

/// Parses ISO 8601 by the other server's wall clock, or with an offset.
fn moment_of(text: &str, zone: &TimeZone) -> Option<Timestamp> {
    let text = text.trim();
    let moment = match text.parse::<jiff::Timestamp>() {
        Ok(moment) => moment,
        Err(_) => {
            let local: DateTime = text.parse().ok()?;
            local.to_zoned(zone.clone()).ok()?.timestamp()
        }
    };
    Some(Timestamp::from_millis(moment.as_millisecond()))
}
