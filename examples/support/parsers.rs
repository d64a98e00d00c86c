//! The parsers of single settings. Their errors are a part of a line, which begins with the setting's name.

use std::fs;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use http::header::{self, HeaderName};
use tower_web_push::subscription::Origin;
use tower_web_push::vapid::{KeyId, VapidPublicKey};
use tracing_subscriber::EnvFilter;

use super::secret_setting::unquoted;
use super::settings::SettingsError;

pub(super) fn setting<T>(
    name: &str,
    text: &str,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Result<T, SettingsError> {
    unquoted(text.trim())
        .and_then(parse)
        .map_err(|why| SettingsError(format!("{name}: {why}")))
}

pub(super) fn optional<T>(
    name: &str,
    text: Option<String>,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Result<Option<T>, SettingsError> {
    text.filter(|text| !text.trim().is_empty())
        .map(|text| setting(name, &text, parse))
        .transpose()
}

pub(super) fn list<T>(
    name: &str,
    text: Option<String>,
    mut parse: impl FnMut(&str) -> Result<T, String>,
) -> Result<Vec<T>, SettingsError> {
    text.unwrap_or_default()
        .split(',')
        .filter(|entry| !entry.trim().is_empty())
        .map(|entry| setting(name, entry, &mut parse))
        .collect()
}

pub(super) fn mode(text: &str) -> Result<u32, String> {
    u32::from_str_radix(text, 8)
        .ok()
        .filter(|mode| *mode <= 0o777)
        .ok_or_else(|| format!("not the mode of a file in octal, as 660 is: {text}"))
}

pub(super) fn wait(text: &str) -> Result<Duration, String> {
    number(text)
        .ok()
        .filter(|seconds| *seconds <= 86_400)
        .map(Duration::from_secs)
        .ok_or_else(|| format!("not a whole number of seconds from 0 to 86400: {text}"))
}

pub(super) fn not_empty(text: &str) -> Result<String, String> {
    match text {
        "" => Err("empty".to_owned()),
        text => Ok(text.to_owned()),
    }
}

pub(super) fn origin(text: &str) -> Result<Origin, String> {
    Origin::parse(text).map_err(|_| format!("not an origin as https://shop.example is: {text}"))
}

pub(super) fn number<T: FromStr>(text: &str) -> Result<T, String> {
    text.parse()
        .map_err(|_| format!("not a whole number from 0, or too large: {text}"))
}

pub(super) fn percent(text: &str) -> Result<u8, String> {
    number(text)
        .ok()
        .filter(|percent| *percent <= 100)
        .ok_or_else(|| format!("not a percentage from 0 to 100: {text}"))
}

/// Reads a PEM file. The client parses the certificates.
pub(super) fn certificates(path: &str) -> Result<Vec<u8>, String> {
    let pem = fs::read(path).map_err(|error| format!("{path}: {error}"))?;
    let marker = b"-----BEGIN CERTIFICATE-----";
    if pem.windows(marker.len()).any(|part| part == marker) {
        Ok(pem)
    } else {
        Err(format!("{path}: no certificate in PEM"))
    }
}

/// Parses the id of a VAPID key, or its public key.
pub(super) fn key_id(text: &str) -> Result<KeyId, String> {
    let of_key = |_| VapidPublicKey::parse(text).map(|key| key.id());
    text.parse::<KeyId>()
        .or_else(of_key)
        .map_err(|_| "neither the id nor the public key of a VAPID key".to_owned())
}

pub(super) fn truth(text: &str) -> Result<bool, String> {
    text.parse()
        .map_err(|_| "neither true nor false".to_owned())
}

/// Refuses headers that clients set themselves, or that do not hold a user's name.
pub(super) fn principal_header(text: &str) -> Result<Arc<HeaderName>, String> {
    let name: HeaderName = text
        .parse()
        .map_err(|_| "not the name of a header".to_owned())?;
    let others = [
        header::AUTHORIZATION,
        header::COOKIE,
        header::FORWARDED,
        header::HOST,
        header::ORIGIN,
        header::USER_AGENT,
        HeaderName::from_static("x-forwarded-for"),
    ];
    if others.contains(&name) {
        return Err(format!("{name} holds something else than the user's name"));
    }
    Ok(Arc::new(name))
}

/// Adds directives to level info. `EnvFilter` takes a misspelt level for the name of a target and logs that target only,
/// so a word without `=` must be a level.
pub(super) fn log_filter(text: &str) -> Result<EnvFilter, String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let bare = |directive: &&str| !directive.is_empty() && !directive.contains('=');
    for word in text.split(',').map(str::trim).filter(bare) {
        if !LEVELS.iter().any(|level| word.eq_ignore_ascii_case(level)) {
            return Err(format!(
                "{word} is none of the levels {}; a target needs one, as in tower_web_push=debug",
                LEVELS.join(", ")
            ));
        }
    }
    EnvFilter::try_new(format!("info,{text}")).map_err(|error| error.to_string())
}

pub(super) fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<u32>() {
        Ok(seconds @ 1..=86_400) => Ok(Duration::from_secs(seconds.into())),
        _ => Err("not a whole number of seconds from 1 to 86400".to_owned()),
    }
}
