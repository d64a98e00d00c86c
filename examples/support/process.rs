//! The memory and the open files of this process, from Linux's `/proc`, under the names that Prometheus' own clients use.
//! On other systems there are no values.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use metrics::{Unit, describe_gauge, gauge};

/// Describes the metrics, and records the start of the process.
pub(crate) fn describe() {
    for (name, unit, help) in [
        (
            "process_resident_memory_bytes",
            Unit::Bytes,
            "Resident memory.",
        ),
        (
            "process_virtual_memory_bytes",
            Unit::Bytes,
            "Virtual memory.",
        ),
        (
            "process_open_fds",
            Unit::Count,
            "Open files, sockets included.",
        ),
        (
            "process_max_fds",
            Unit::Count,
            "The most files that may be open.",
        ),
        (
            "process_start_time_seconds",
            Unit::Seconds,
            "Start of the process, since the Unix epoch.",
        ),
    ] {
        describe_gauge!(name, unit, help);
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    gauge!("process_start_time_seconds").set(now.unwrap_or_default().as_secs_f64());
}

/// Sets the gauges.
pub(crate) fn show() {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    for (name, field) in [
        ("process_resident_memory_bytes", "VmRSS:"),
        ("process_virtual_memory_bytes", "VmSize:"),
    ] {
        if let Some(kibibytes) = number(&status, field) {
            gauge!(name).set(kibibytes * 1024.0);
        }
    }
    if let Ok(files) = fs::read_dir("/proc/self/fd") {
        // Reading the folder takes one itself.
        let files = u32::try_from(files.count().saturating_sub(1));
        gauge!("process_open_fds").set(files.unwrap_or(u32::MAX));
    }
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    if let Some(most) = number(&limits, "Max open files") {
        gauge!("process_max_fds").set(most);
    }
}

/// The first number behind the name of a field.
fn number(text: &str, field: &str) -> Option<f64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(field))?;
    rest.split_whitespace().next()?.parse().ok()
}
