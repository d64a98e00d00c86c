//! Prometheus alert rules: a reader of the rules file and of scrapes, and an evaluator of the expressions that the file uses.
//!
//! It knows what the rules need and nothing more: selectors, `sum`, `max by`, `increase`, `max_over_time`, `absent`, `time`,
//! arithmetic, a comparison, `and`, and the time that `for` waits. An unknown form panics.

use std::collections::{BTreeMap, BTreeSet};

/// One alert.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    pub(crate) name: String,
    /// `page` or `ticket`.
    #[allow(dead_code, reason = "one of the tests looks at it")]
    pub(crate) severity: String,
    pub(crate) expression: String,
    /// How long the expression matches before the alert fires, in seconds.
    pub(crate) pending: f64,
}

/// Scrapes of one server, the last one last, each with its time in seconds since the Unix epoch.
pub(crate) type History<'a> = [(f64, &'a Scrape)];

impl Rule {
    /// Whether the alert fires: its expression matches at each scrape for as long as `for` says.
    pub(crate) fn fires(&self, history: &History<'_>) -> bool {
        let mut since = None;
        (1..=history.len()).any(|scrapes| {
            let (now, _) = history[scrapes - 1];
            if !matches(&self.expression, &history[..scrapes]) {
                since = None;
                return false;
            }
            now - *since.get_or_insert(now) >= self.pending
        })
    }
}

/// Reads the rules file: YAML in the one form that it has.
pub(crate) fn rules(text: &str) -> Vec<Rule> {
    let mut lines = text
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'));
    assert_eq!(lines.next(), Some("groups:"));
    assert_eq!(lines.next(), Some("  - name: web-push"));
    assert_eq!(lines.next(), Some("    rules:"));
    let mut rules: Vec<(String, BTreeMap<&str, &str>)> = Vec::new();
    let mut section = "";
    for line in lines {
        let (key, value) = line.trim().split_once(':').unwrap();
        let indent = line.len() - line.trim_start().len();
        let value = value.trim();
        assert!(
            !value.contains(": ") && !value.contains(" #"),
            "it needs quotation marks: {line}"
        );
        match (indent, key) {
            (6, "- alert") => rules.push((value.to_owned(), BTreeMap::new())),
            (8, "labels" | "annotations") => section = key,
            (8, "expr" | "for") => drop(rules.last_mut().unwrap().1.insert(key, value)),
            (10, "severity") => {
                assert_eq!(section, "labels");
                assert!(["page", "ticket"].contains(&value), "{line}");
                rules.last_mut().unwrap().1.insert(key, value);
            }
            (10, "summary") => {
                assert_eq!(section, "annotations");
                rules.last_mut().unwrap().1.insert(key, value);
            }
            _ => panic!("{line}"),
        }
    }
    let rules = rules.into_iter();
    rules
        .map(|(name, parts)| {
            for part in ["expr", "severity", "summary"] {
                assert!(parts.contains_key(part), "{name} has no {part}");
            }
            let expression = parts["expr"].to_owned();
            let pending = parts.get("for").map_or(0.0, |text| seconds(text));
            Rule {
                name,
                severity: parts["severity"].to_owned(),
                expression,
                pending,
            }
        })
        .collect()
}

/// Minutes or hours.
fn seconds(text: &str) -> f64 {
    let (number, unit) = text.split_at(text.len() - 1);
    let unit = match unit {
        "m" => 60.0,
        "h" => 3_600.0,
        _ => panic!("{text}"),
    };
    number.parse::<f64>().unwrap() * unit
}

/// The names of metrics in an expression or a dashboard, those of a histogram's parts as the histogram's.
pub(crate) fn names(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words
        .filter(|word| word.starts_with("web_push_") || word.starts_with("process_"))
        .map(|word| {
            let parts = ["_bucket", "_sum", "_count"];
            let whole = parts.iter().find_map(|part| word.strip_suffix(part));
            whole.unwrap_or(word).to_owned()
        })
        .collect()
}

type Labels = BTreeMap<String, String>;

/// What a server answered at `/metrics`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scrape(Vec<(String, Labels, f64)>);

impl Scrape {
    /// Reads Prometheus' text format 0.0.4, and checks that each metric has a description and a type before its values.
    pub(crate) fn parse(text: &str) -> Self {
        let (mut helped, mut typed) = (String::new(), String::new());
        let mut series = Vec::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                helped = rest.split_once(' ').unwrap().0.to_owned();
                continue;
            }
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                typed = rest.split_once(' ').unwrap().0.to_owned();
                assert_eq!(typed, helped, "HELP comes first");
                continue;
            }
            let (key, value) = line.rsplit_once(' ').unwrap();
            let (name, labels) = match key.split_once('{') {
                Some((name, labels)) => (name, read_labels(labels.strip_suffix('}').unwrap())),
                None => (key, Labels::new()),
            };
            assert!(name.starts_with(&typed), "{line} is not below its type");
            series.push((name.to_owned(), labels, value.parse().unwrap()));
        }
        Self(series)
    }

    /// The scrape as version 3 of Prometheus stores it: bounds of buckets as floating-point numbers.
    pub(crate) fn as_version_3(&self) -> Self {
        let mut scrape = self.clone();
        for (_, labels, _) in &mut scrape.0 {
            if let Some(bound) = labels.get_mut("le")
                && bound.parse::<u64>().is_ok()
            {
                bound.push_str(".0");
            }
        }
        scrape
    }

    /// The sum of a metric over the series with these labels.
    pub(crate) fn sum(&self, selector: &str) -> f64 {
        let mut parser = Parser(selector);
        let selector = parser.selector();
        self.select(&selector).map(|(_, value)| value).sum()
    }

    fn select<'a>(&'a self, of: &'a Selector) -> impl Iterator<Item = (&'a Labels, f64)> {
        let series = self.0.iter().filter(|(name, labels, _)| {
            *name == of.name && of.matchers.iter().all(|matcher| matcher.holds(labels))
        });
        series.map(|(_, labels, value)| (labels, *value))
    }
}

fn read_labels(text: &str) -> Labels {
    let pairs = text.split("\",").filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (name, value) = pair.split_once("=\"").unwrap();
            (name.to_owned(), value.trim_end_matches('"').to_owned())
        })
        .collect()
}

/// Whether an expression matches at the last scrape.
pub(crate) fn matches(expression: &str, history: &History<'_>) -> bool {
    let mut parser = Parser(expression);
    let (time, now) = *history.last().unwrap();
    let at = At { history, now, time };
    let value = parser.conjunction(&at);
    assert_eq!(parser.0, "", "not understood, in {expression}");
    match value {
        Value::Scalar(_) => panic!("{expression} compares nothing"),
        Value::Vector(series) => !series.is_empty(),
    }
}

struct At<'a> {
    history: &'a History<'a>,
    now: &'a Scrape,
    time: f64,
}

impl At<'_> {
    /// The scrapes in the last seconds.
    fn within(&self, seconds: f64) -> impl Iterator<Item = &Scrape> {
        let after = self.time - seconds;
        let history = self.history.iter().filter(move |(at, _)| *at > after);
        history.map(|(_, scrape)| *scrape)
    }
}

enum Value {
    Scalar(f64),
    Vector(Vec<(Labels, f64)>),
}

impl Value {
    /// Arithmetic: of two vectors, between the series with the same labels.
    fn with(self, other: Self, operation: impl Fn(f64, f64) -> f64) -> Self {
        let each = |series: Vec<(Labels, f64)>, change: &dyn Fn(f64) -> f64| {
            let changed = series.into_iter();
            Self::Vector(
                changed
                    .map(|(labels, value)| (labels, change(value)))
                    .collect(),
            )
        };
        match (self, other) {
            (Self::Scalar(one), Self::Scalar(other)) => Self::Scalar(operation(one, other)),
            (Self::Scalar(one), Self::Vector(series)) => {
                each(series, &|value| operation(one, value))
            }
            (Self::Vector(series), Self::Scalar(other)) => {
                each(series, &|value| operation(value, other))
            }
            (Self::Vector(one), Self::Vector(other)) => {
                let pairs = one.into_iter().filter_map(|(labels, value)| {
                    let (_, other) = other.iter().find(|(same, _)| *same == labels)?;
                    Some((labels, operation(value, *other)))
                });
                Self::Vector(pairs.collect())
            }
        }
    }
}

struct Selector {
    name: String,
    matchers: Vec<Matcher>,
}

struct Matcher {
    label: String,
    operator: String,
    value: String,
}

impl Matcher {
    fn holds(&self, labels: &Labels) -> bool {
        let given = labels.get(&self.label).map_or("", String::as_str);
        let matches = || self.value.split('|').any(|pattern| is_like(given, pattern));
        match &*self.operator {
            "=" => given == self.value,
            "!=" => given != self.value,
            "=~" => matches(),
            "!~" => !matches(),
            other => panic!("{other}"),
        }
    }
}

/// A regular expression of plain characters, dots, and escaped dots (twice: in the string, and in the expression).
fn is_like(text: &str, pattern: &str) -> bool {
    const DOT: char = '\0';
    let pattern = pattern.replace(r"\\.", &DOT.to_string());
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.' || c == DOT;
    assert!(pattern.chars().all(plain), "{pattern}");
    let is_like = |(c, like)| match like {
        DOT => c == '.',
        '.' => true,
        like => c == like,
    };
    text.len() == pattern.len() && text.chars().zip(pattern.chars()).all(is_like)
}

/// The rest of an expression.
struct Parser<'a>(&'a str);

impl Parser<'_> {
    fn take(&mut self, token: &str) -> bool {
        self.0 = self.0.trim_start();
        match self.0.strip_prefix(token) {
            Some(rest) => {
                self.0 = rest;
                true
            }
            None => false,
        }
    }

    fn expect(&mut self, token: &str) {
        assert!(self.take(token), "{token} is missing before {}", self.0);
    }

    fn word(&mut self, allowed: impl Fn(char) -> bool) -> String {
        self.0 = self.0.trim_start();
        let end = self.0.find(|c| !allowed(c)).unwrap_or(self.0.len());
        let (word, rest) = self.0.split_at(end);
        self.0 = rest;
        word.to_owned()
    }

    /// Comparisons that hold together, of series with the same labels or with the same ones of those listed.
    fn conjunction(&mut self, at: &At<'_>) -> Value {
        let mut value = self.comparison(at);
        while self.take("and ") {
            let mut on = None;
            if self.take("on(") {
                let listed = self.word(|c| c != ')');
                self.expect(")");
                on = Some(listed);
            }
            let common = |labels: &Labels| -> Labels {
                let is_common = |name: &str| {
                    on.as_deref()
                        .is_none_or(|on| on.split(", ").any(|one| one == name))
                };
                let labels = labels.iter().filter(|(name, _)| is_common(name));
                labels.map(|(k, v)| (k.clone(), v.clone())).collect()
            };
            let (Value::Vector(left), Value::Vector(right)) = (&mut value, self.comparison(at))
            else {
                panic!("a number is neither true nor false");
            };
            let right: BTreeSet<_> = right.iter().map(|(labels, _)| common(labels)).collect();
            left.retain(|(labels, _)| right.contains(&common(labels)));
        }
        value
    }

    fn comparison(&mut self, at: &At<'_>) -> Value {
        let left = self.sum(at);
        let holds: fn(f64, f64) -> bool = match self.0.trim_start() {
            rest if rest.starts_with("==") => |one, other| one == other,
            rest if rest.starts_with('>') => |one, other| one > other,
            rest if rest.starts_with('<') => |one, other| one < other,
            _ => return left,
        };
        self.word(|c| "=><".contains(c));
        let Value::Scalar(limit) = self.sum(at) else {
            panic!("a limit is a number");
        };
        match left {
            Value::Scalar(_) => panic!("a number is compared"),
            Value::Vector(mut series) => {
                series.retain(|(_, value)| holds(*value, limit));
                Value::Vector(series)
            }
        }
    }

    fn sum(&mut self, at: &At<'_>) -> Value {
        let mut value = self.product(at);
        loop {
            value = if self.take("+") {
                value.with(self.product(at), |one, other| one + other)
            } else if self.take("-") {
                value.with(self.product(at), |one, other| one - other)
            } else {
                return value;
            };
        }
    }

    fn product(&mut self, at: &At<'_>) -> Value {
        let mut value = self.value(at);
        loop {
            value = if self.take("*") {
                value.with(self.value(at), |one, other| one * other)
            } else if self.take("/") {
                value.with(self.value(at), |one, other| one / other)
            } else {
                return value;
            };
        }
    }

    fn value(&mut self, at: &At<'_>) -> Value {
        if self.take("time()") {
            return Value::Scalar(at.time);
        }
        if self.take("sum(") {
            let Value::Vector(series) = self.sum(at) else {
                panic!("the sum of a number");
            };
            self.expect(")");
            let sum: f64 = series.iter().map(|(_, value)| value).sum();
            let has_any = !series.is_empty();
            return Value::Vector(has_any.then(|| (Labels::new(), sum)).into_iter().collect());
        }
        if self.take("max by (") {
            let listed = self.word(|c| c != ')');
            self.expect(")");
            self.expect("(");
            let Value::Vector(series) = self.sum(at) else {
                panic!("the maximum of a number");
            };
            self.expect(")");
            let mut largest: BTreeMap<Labels, f64> = BTreeMap::new();
            for (mut labels, value) in series {
                labels.retain(|name, _| listed.split(", ").any(|one| one == name));
                let largest = largest.entry(labels).or_insert(value);
                *largest = value.max(*largest);
            }
            return Value::Vector(largest.into_iter().collect());
        }
        if self.take("increase(") {
            let (selector, range) = self.range();
            // The first value in the range and the number of values.
            let mut first: BTreeMap<_, (f64, usize)> = BTreeMap::new();
            for scrape in at.within(range) {
                for (labels, value) in scrape.select(&selector) {
                    first.entry(labels).or_insert((value, 0)).1 += 1;
                }
            }
            // As in Prometheus, a series that is new has no increase.
            let increases = at.now.select(&selector).filter_map(|(labels, value)| {
                let (first, values) = first.get(labels)?;
                (*values > 1).then(|| (labels.clone(), value - first))
            });
            return Value::Vector(increases.collect());
        }
        if self.take("max_over_time(") {
            let (selector, range) = self.range();
            let mut largest = BTreeMap::new();
            for scrape in at.within(range) {
                for (labels, value) in scrape.select(&selector) {
                    let largest = largest.entry(labels.clone()).or_insert(value);
                    *largest = value.max(*largest);
                }
            }
            return Value::Vector(largest.into_iter().collect());
        }
        if self.take("absent(") {
            let selector = self.selector();
            self.expect(")");
            let is_absent = at.now.select(&selector).next().is_none();
            return Value::Vector(
                is_absent
                    .then(|| (Labels::new(), 1.0))
                    .into_iter()
                    .collect(),
            );
        }
        self.0 = self.0.trim_start();
        if self.0.starts_with(|c: char| c.is_ascii_digit()) {
            let number = self.word(|c| c.is_ascii_digit() || c == '.');
            return Value::Scalar(number.parse().unwrap());
        }
        let selector = self.selector();
        let series = at.now.select(&selector);
        Value::Vector(
            series
                .map(|(labels, value)| (labels.clone(), value))
                .collect(),
        )
    }

    /// A selector and a range in seconds, to the end of a call.
    fn range(&mut self) -> (Selector, f64) {
        let selector = self.selector();
        self.expect("[");
        let range = self.word(|c| c.is_ascii_alphanumeric());
        self.expect("])");
        (selector, seconds(&range))
    }

    fn selector(&mut self) -> Selector {
        let name = self.word(|c| c.is_ascii_alphanumeric() || c == '_');
        assert!(!name.is_empty(), "a name is missing before {}", self.0);
        let mut matchers = Vec::new();
        if self.take("{") {
            loop {
                let label = self.word(|c| c.is_ascii_alphanumeric() || c == '_');
                let operator = self.word(|c| "=!~".contains(c));
                self.expect("\"");
                let value = self.word(|c| c != '"');
                self.expect("\"");
                matchers.push(Matcher {
                    label,
                    operator,
                    value,
                });
                if !self.take(",") {
                    break;
                }
            }
            self.expect("}");
        }
        Selector { name, matchers }
    }
}
