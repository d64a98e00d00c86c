use std::collections::HashSet;

use ::metrics::Unit;

use super::described::{Kind, METRICS};

#[test]
fn every_metric_is_named_once_and_as_prometheus_recommends() {
    let names: HashSet<_> = METRICS.iter().map(|(_, name, ..)| name).collect();
    assert_eq!(names.len(), METRICS.len());
    for (kind, name, unit, help) in METRICS {
        assert!(name.starts_with("web_push_"), "{name}");
        assert_eq!(name.ends_with("_total"), *kind == Kind::Counter, "{name}");
        assert_eq!(name.ends_with("_seconds"), *unit == Unit::Seconds, "{name}");
        assert!(help.ends_with('.') || help.contains("; "), "{name}: {help}");
    }
}

#[test]
fn the_guide_lists_every_metric() {
    let guide = include_str!("../guide/watching_it.md");
    for (_, name, ..) in METRICS {
        assert!(guide.contains(&format!("| `{name}` |")), "{name}");
    }
    let rows = guide
        .lines()
        .filter(|line| line.starts_with("| `web_push_"));
    assert_eq!(rows.count(), METRICS.len());
}
