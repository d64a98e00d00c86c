//! What happens in a run: drawn from its seed before it begins.

use std::time::Duration;

use super::rng::Rng;

/// The replicas that send.
pub(super) const HOSTS: usize = 3;
/// One more process, in some runs: it accepts messages, and has no worker. The others learn of its messages by hints or by polls.
pub(super) const FRONT: usize = HOSTS;
pub(super) const PROCESSES: usize = HOSTS + 1;
/// The push services. One of them works all the time.
pub(super) const SERVICES: [&str; 3] = [
    "https://fcm.googleapis.com/fcm/send/",
    "https://updates.push.services.mozilla.com/wpush/v2/",
    "https://push.example.net/",
];
/// The users at each push service when it begins: too few for a conclusion about it, or enough (eight witnesses).
const USERS: [usize; 2] = [4, 10];
/// The time in which events happen.
const LENGTH: u64 = 150;

#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) seed: u64,
    /// The push service that works all the time.
    pub(super) calm: usize,
    /// The push service of each recipient, and how it answers for one that a stranger made.
    pub(super) recipients: Vec<(usize, Option<Stranger>)>,
    /// Whether there is a process that only accepts.
    pub(super) has_front: bool,
    /// The most requests in flight to one push service.
    pub(super) in_flight: usize,
    /// The minute of the daily notification after the start.
    pub(super) daily: u8,
    /// Whether the store sends hints of new work to all replicas.
    pub(super) has_hints: bool,
    /// The most milliseconds that a call to the store takes before its effect, and after it: replicas run in turns, and what
    /// they do at the same time meets within a call.
    pub(super) latency: u64,
    /// Whether the store has signs of life, as those on a server.
    pub(super) has_beats: bool,
    pub(super) mails: Vec<Mail>,
    /// In the order of their times.
    pub(super) events: Vec<Event>,
}

/// How a push service answers for a subscription that a stranger made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stranger {
    Status(u16),
    LimitedFor(u64),
    Silent,
}

/// A message of the application.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mail {
    /// `None` for everyone.
    pub(super) user: Option<usize>,
    pub(super) is_urgent: bool,
    pub(super) pace: Option<u32>,
    /// When it is to be sent.
    pub(super) later: Option<Duration>,
    pub(super) ttl: Option<u32>,
}

impl Mail {
    const fn to_all() -> Self {
        Self {
            user: None,
            is_urgent: false,
            pace: None,
            later: None,
            ttl: None,
        }
    }
}

/// The behaviour of a whole push service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Weather {
    /// 429, with or without `Retry-After` in seconds.
    Limited(Option<u64>),
    Status(u16),
    Silent,
    /// Accepts, and the response does not arrive.
    Deaf,
    /// The connection breaks before the request arrives.
    Broken,
    /// Responses take up to this time.
    Slow(Duration),
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Event {
    pub(super) at: Duration,
    pub(super) what: What,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum What {
    /// The process is killed, and started again after a time.
    Crash {
        host: usize,
        down: Duration,
    },
    /// The process is asked to end, and started again.
    Deploy {
        host: usize,
    },
    /// The process is stopped for a time (`SIGSTOP`, a page fault, a paused virtual machine).
    Freeze {
        host: usize,
        lasts: Duration,
    },
    /// The machine sleeps: its monotonic clock stands still.
    Sleep {
        host: usize,
        lasts: Duration,
    },
    /// All machines sleep.
    Night {
        lasts: Duration,
    },
    /// The client of this replica takes no request: rows that it has claimed wait.
    Busy {
        host: usize,
        lasts: Duration,
    },
    /// The table of subscriptions cannot be read, and the ledger works.
    Unread {
        lasts: Duration,
    },
    /// The process runs for a quarter of the time.
    Starve {
        host: usize,
        lasts: Duration,
    },
    /// No call of this replica reaches the store, and no reply comes back.
    Cut {
        host: usize,
        lasts: Duration,
    },
    /// Calls to the store fail, before or after they took effect.
    Flaky {
        percent: u64,
        lasts: Duration,
    },
    /// Calls to the store take up to this time, twice.
    Sluggish {
        up_to: Duration,
        lasts: Duration,
    },
    /// The wall clock of a machine is set, and set back.
    Step {
        host: usize,
        millis: i64,
        lasts: Duration,
    },
    Weather {
        service: usize,
        kind: Weather,
        lasts: Duration,
    },
    /// The VAPID key is rotated.
    Rotate {
        host: usize,
    },
    /// A new user at a push service.
    Subscribe {
        service: usize,
    },
    /// The browser of a user is gone.
    Expire {
        user: usize,
    },
    Send {
        host: usize,
        mail: usize,
    },
    /// A broadcast is paused, and goes on.
    Hold {
        mail: usize,
        lasts: Duration,
    },
    Cancel {
        mail: usize,
    },
}

impl What {
    /// Whether it is work, and not a fault.
    pub(super) const fn is_work(&self) -> bool {
        matches!(
            self,
            Self::Send { .. }
                | Self::Hold { .. }
                | Self::Cancel { .. }
                | Self::Subscribe { .. }
                | Self::Deploy { .. }
                | Self::Rotate { .. }
        )
    }
}

impl Plan {
    pub(super) fn of(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        // Neighbouring seeds begin with unrelated numbers.
        let rng = &mut Rng::new(rng.next());
        let calm = rng.below(SERVICES.len());
        let users = SERVICES.len() * rng.of(&USERS);
        let has_front = rng.percent(40);
        let mut recipients: Vec<_> = (0..users)
            .map(|number| (number % SERVICES.len(), None))
            .collect();
        for _ in 0..rng.below(4) {
            recipients.push((rng.below(SERVICES.len()), Some(stranger(rng))));
        }
        let mut mails = Vec::new();
        let mut events = Vec::new();
        for _ in 0..rng.between(2, 6) {
            let send = What::Send {
                host: match has_front && rng.percent(50) {
                    true => FRONT,
                    false => rng.below(HOSTS),
                },
                mail: mails.len(),
            };
            let at = rng.secs(1, LENGTH);
            mails.push(mail(rng, at, users));
            events.push(Event { at, what: send });
            // One that is paused or cancelled was sent before.
            let later = at + rng.millis(0, 20_000);
            let mail = mails.len() - 1;
            if rng.percent(15) {
                let lasts = rng.secs(1, 90);
                let what = What::Hold { mail, lasts };
                events.push(Event { at: later, what });
            } else if rng.percent(8) {
                let what = What::Cancel { mail };
                events.push(Event { at: later, what });
            }
        }
        for _ in 0..rng.between(1, 7) {
            // A night before the daily notification is scheduled would put it off to the next day.
            let at = rng.secs(0, LENGTH).max(Duration::from_secs(5));
            let what = fault(rng, calm, users);
            events.push(Event { at, what });
        }
        if rng.percent(50) {
            jam(rng, calm, &mut mails, &mut events);
        }
        if rng.percent(20) {
            // A deployment, one replica after the other.
            let start = rng.secs(0, LENGTH);
            for host in 0..HOSTS {
                let at = start + Duration::from_secs(5) * u32::try_from(host).unwrap();
                let what = What::Deploy { host };
                events.push(Event { at, what });
            }
        }
        if has_front {
            // Long after all faults, when the replicas have nothing to do.
            let at = rng.secs(LENGTH + 60, LENGTH + 110);
            let mail = mails.len();
            mails.push(Mail {
                user: Some(calm + SERVICES.len() * rng.below(users / SERVICES.len())),
                ..Mail::to_all()
            });
            events.push(Event {
                at,
                what: What::Send { host: FRONT, mail },
            });
        }
        // With numbers of its own.
        let scenes = &mut Rng::new(seed ^ 0x7363_656e_6573);
        let scenes = &mut Rng::new(scenes.next());
        if scenes.percent(25) {
            scene(scenes, calm, &mut mails, &mut events);
        }
        events.sort_by_key(|event| event.at);
        Self {
            seed,
            calm,
            recipients,
            has_front,
            in_flight: rng.of(&[8, 600]),
            daily: u8::try_from(rng.between(1, 2)).unwrap(),
            has_hints: rng.percent(50),
            latency: rng.of(&[20, 60, 200]),
            has_beats: rng.percent(30),
            mails,
            events,
        }
    }

    /// Whether calls to the store take long at times.
    pub(super) fn is_slow(&self) -> bool {
        let mut events = self.events.iter();
        events.any(|event| matches!(event.what, What::Sluggish { .. }))
    }

    /// The faults of the plan.
    pub(super) fn faults(&self) -> usize {
        let faults = self.events.iter().filter(|event| !event.what.is_work());
        faults.count()
    }
}

fn stranger(rng: &mut Rng) -> Stranger {
    match rng.below(9) {
        0 => Stranger::LimitedFor(3600),
        1 => Stranger::Silent,
        _ => Stranger::Status(rng.of(&[400, 401, 403, 404, 410, 429, 500])),
    }
}

/// A broadcast whose rows a replica claims and cannot send, and what happens to it meanwhile: rows that wait for a permit or a
/// connection are rare otherwise, with so few recipients.
fn jam(rng: &mut Rng, calm: usize, mails: &mut Vec<Mail>, events: &mut Vec<Event>) {
    let (host, start) = (rng.below(HOSTS), rng.secs(5, LENGTH));
    let mut happens = |at, what| events.push(Event { at, what });
    let mut send = |rng: &mut Rng, host, at| {
        let is_urgent = rng.percent(50);
        let what = What::Send {
            host,
            mail: mails.len(),
        };
        mails.push(Mail {
            is_urgent,
            ..Mail::to_all()
        });
        happens(at, what);
    };
    send(rng, host, start);
    let at = start + rng.millis(300, 2_500);
    let (is_down, kind) = (rng.percent(40), weather(rng));
    if is_down {
        // Others find out that a push service is down, while this one does not send.
        send(rng, (host + 1) % HOSTS, at);
        let later = at + rng.secs(1, 5);
        send(rng, (host + 2) % HOSTS, later);
    }
    let lasts = rng.secs(4, 40);
    let before = start - rng.millis(0, 500);
    happens(before, What::Busy { host, lasts });
    let lasts = rng.secs(4, 40);
    let what = match rng.below(3) {
        _ if is_down => What::Weather {
            service: (calm + rng.of(&[1, 2])) % SERVICES.len(),
            kind,
            lasts: lasts * 3,
        },
        0 => What::Cut { host, lasts },
        1 => What::Freeze { host, lasts },
        _ => What::Unread { lasts: lasts / 4 },
    };
    happens(at - rng.millis(0, 200), what);
}

/// What seldom meets by chance.
fn scene(rng: &mut Rng, calm: usize, mails: &mut Vec<Mail>, events: &mut Vec<Event>) {
    let (host, start) = (rng.below(HOSTS), rng.secs(5, LENGTH));
    let service = (calm + rng.of(&[1, 2])) % SERVICES.len();
    let mut happens = |at, what| events.push(Event { at, what });
    let mail = mails.len();
    mails.push(Mail::to_all());
    happens(start, What::Send { host, mail });
    let soon = start + rng.millis(200, 4_000);
    let lasts = rng.secs(20, 120);
    match rng.below(4) {
        // A push service refuses the VAPID key until there is another one.
        0 => {
            let kind = Weather::Status(rng.of(&[401, 403]));
            happens(
                start,
                What::Weather {
                    service,
                    kind,
                    lasts,
                },
            );
            let host = rng.below(HOSTS);
            happens(start + rng.secs(10, 60), What::Rotate { host });
        }
        // A push service is found to be down while the database cannot be written.
        1 => {
            let kind = weather(rng);
            happens(
                start,
                What::Weather {
                    service,
                    kind,
                    lasts,
                },
            );
            let lasts = rng.secs(1, 6);
            let what = match rng.percent(50) {
                true => What::Cut { host, lasts },
                false => What::Flaky { percent: 60, lasts },
            };
            happens(soon, what);
        }
        // A broadcast is cancelled while its rows are on their way.
        2 => {
            let kind = weather(rng);
            happens(
                start,
                What::Weather {
                    service,
                    kind,
                    lasts,
                },
            );
            happens(
                start,
                What::Busy {
                    host,
                    lasts: rng.secs(1, 10),
                },
            );
            happens(soon, What::Cancel { mail });
        }
        // The database is slow while there is much to write.
        _ => {
            let up_to = rng.secs(1, 4);
            happens(start, What::Sluggish { up_to, lasts });
            for wait in 1..4 {
                let mail = mails.len();
                mails.push(Mail::to_all());
                let host = rng.below(HOSTS);
                happens(
                    start + Duration::from_secs(5) * wait,
                    What::Send { host, mail },
                );
            }
        }
    }
}

fn mail(rng: &mut Rng, at: Duration, users: usize) -> Mail {
    let is_bulk = rng.percent(50);
    Mail {
        user: (!is_bulk).then(|| rng.below(users)),
        is_urgent: rng.percent(if is_bulk { 10 } else { 60 }),
        pace: (is_bulk && rng.percent(25)).then(|| u32::try_from(rng.between(1, 8)).unwrap()),
        later: rng.percent(20).then(|| at + rng.secs(1, 60)),
        ttl: rng
            .percent(15)
            .then(|| u32::try_from(rng.between(20, 300)).unwrap()),
    }
}

fn fault(rng: &mut Rng, calm: usize, users: usize) -> What {
    let host = rng.below(HOSTS);
    let lasts = match rng.below(3) {
        0 => rng.millis(50, 3_000),
        1 => rng.secs(2, 20),
        _ => rng.secs(10, 90),
    };
    match rng.below(25) {
        0..3 => What::Crash { host, down: lasts },
        3 => What::Deploy { host },
        4 | 5 => What::Freeze { host, lasts },
        6 => What::Sleep { host, lasts },
        7 => What::Night {
            lasts: rng.secs(60, 24 * 3600),
        },
        8 => What::Starve { host, lasts },
        9 | 10 => What::Cut { host, lasts },
        11 | 12 => What::Flaky {
            percent: rng.between(5, 60),
            lasts,
        },
        13 => What::Sluggish {
            up_to: rng.millis(100, 4_000),
            lasts,
        },
        14 => {
            let millis = i64::try_from(match rng.below(2) {
                0 => rng.between(500, 9_000),
                _ => rng.between(11_000, 7_200_000),
            });
            What::Step {
                host,
                millis: millis.unwrap() * rng.of(&[1, -1]),
                lasts,
            }
        }
        15 => What::Rotate { host },
        16 => What::Subscribe {
            service: rng.below(SERVICES.len()),
        },
        17 => What::Expire {
            user: rng.below(users),
        },
        18 | 19 => What::Unread {
            lasts: rng.millis(500, 8_000),
        },
        20 => What::Busy { host, lasts },
        _ => What::Weather {
            service: (calm + rng.of(&[1, 2])) % SERVICES.len(),
            kind: weather(rng),
            lasts,
        },
    }
}

fn weather(rng: &mut Rng) -> Weather {
    match rng.below(8) {
        0 => Weather::Limited(None),
        1 => Weather::Limited(Some(rng.between(1, 120))),
        2 => Weather::Silent,
        3 => Weather::Deaf,
        4 => Weather::Broken,
        5 => Weather::Slow(rng.secs(1, 20)),
        _ => Weather::Status(rng.of(&[401, 500, 502, 503])),
    }
}
