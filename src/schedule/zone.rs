//! Time zones by their IANA names.

use std::fmt;
use std::sync::Arc;

use jiff::tz::TimeZone;

#[cfg(feature = "zones")]
use crate::error::unit_error;

/// A time zone: UTC, or with feature `zones` any of the IANA database.
///
/// The data is the system's. For a name that the system lacks, it is that of the compiled `jiff` release.
#[derive(Clone)]
pub struct Zone {
    name: Arc<str>,
    /// `None` for a stored name that is unknown.
    rules: Option<TimeZone>,
}

impl Zone {
    /// Coordinated universal time.
    #[must_use]
    pub(crate) fn utc() -> Self {
        Self {
            name: Arc::from("UTC"),
            rules: Some(TimeZone::UTC),
        }
    }

    /// The zone of an IANA name, `Europe/Berlin`, in any case; links such as `US/Eastern` are names too.
    ///
    /// # Errors
    ///
    /// Returns an error if the name is in neither database.
    #[cfg(feature = "zones")]
    pub fn parse(name: &str) -> Result<Self, ZoneError> {
        let rules = look_up(name).ok_or(ZoneError(()))?;
        let name = rules.iana_name().unwrap_or(name);
        Ok(Self {
            name: Arc::from(name),
            rules: Some(rules),
        })
    }

    /// Makes a zone of a stored name. An unknown one keeps its name, and has no times.
    #[must_use]
    pub fn stored(name: &str) -> Self {
        Self {
            name: Arc::from(name),
            rules: look_up(name),
        }
    }

    /// Its IANA name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(super) const fn rules(&self) -> Option<&TimeZone> {
        self.rules.as_ref()
    }
}

/// Longer than any name in the database.
#[cfg(feature = "zones")]
const LONGEST: usize = 64;

#[cfg(feature = "zones")]
fn look_up(name: &str) -> Option<TimeZone> {
    use jiff::tz::{TimeZoneDatabase, db};

    // The database is files: a text that is not a name must not become a path.
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_+-/".contains(&byte);
    if name.is_empty() || name.len() > LONGEST || !name.bytes().all(is_plain) {
        return None;
    }
    if name.eq_ignore_ascii_case("UTC") {
        return Some(TimeZone::UTC);
    }
    // Files of the database that depend on the machine's settings, so their meaning differs between replicas.
    if ["localtime", "posixrules"].contains(&name.to_ascii_lowercase().as_str()) {
        return None;
    }
    // A system may lack the links, or the whole database.
    db().get(name)
        .or_else(|_| TimeZoneDatabase::bundled().get(name))
        .ok()
        // `Etc/Unknown`, which browsers report if they do not know the zone, would be UTC.
        .filter(|rules| !rules.is_unknown())
}

#[cfg(not(feature = "zones"))]
fn look_up(name: &str) -> Option<TimeZone> {
    (name == "UTC").then_some(TimeZone::UTC)
}

/// Zones are equal by name.
impl PartialEq for Zone {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Zone {}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl fmt::Debug for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Zone({})", self.name)
    }
}

#[cfg(feature = "zones")]
unit_error! {
    /// A name that is no time zone.
    ZoneError, "the time zone is not in the IANA database"
}

#[cfg(all(test, feature = "zones"))]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_any_case_and_links_too() {
        for (given, name) in [
            ("Europe/Berlin", "Europe/Berlin"),
            ("europe/berlin", "Europe/Berlin"),
            (
                "America/Argentina/Buenos_Aires",
                "America/Argentina/Buenos_Aires",
            ),
            ("Etc/GMT+5", "Etc/GMT+5"),
            ("utc", "UTC"),
            ("US/Eastern", "US/Eastern"),
            ("Asia/Calcutta", "Asia/Calcutta"),
        ] {
            assert_eq!(Zone::parse(given).unwrap().name(), name);
        }
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for name in [
            "",
            "Europe",
            "Europe/Atlantis",
            "../../etc/passwd",
            "/etc/localtime",
            "Europe/Berlin ",
            "Europe\\Berlin",
            "+01:00",
            "localtime",
            "PosixRules",
            "Etc/Unknown",
            "CET-1CEST",
            "Europe/Berlin\0",
            "localtime",
            "PosixRules",
            "Etc/Unknown",
            &"A".repeat(65),
        ] {
            assert!(Zone::parse(name).is_err(), "{name}");
        }
    }

    #[test]
    fn a_stored_name_that_is_not_known_is_kept() {
        let zone = Zone::stored("Europe/Atlantis");
        assert_eq!(zone.name(), "Europe/Atlantis");
        assert!(zone.rules().is_none());
        assert_eq!(
            Zone::stored("Asia/Tokyo"),
            Zone::parse("asia/tokyo").unwrap()
        );
        assert_ne!(Zone::stored("Asia/Tokyo"), Zone::utc());
    }
}
