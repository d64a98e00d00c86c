//! Parsing a database URL: the driver's parameters, further ones of libpq, and settings of the store.
//!
//! Unknown parameters are refused by name. Errors contain neither values nor the part before the `?`, which may hold a
//! password.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::path::PathBuf;

use tokio_postgres::Config;
use tokio_postgres::config::{SslMode, TargetSessionAttrs};

use super::error::misconfigured;
use crate::encoding::hex;
use crate::store::StoreError;
use crate::store::reason::parameter;

/// A parsed URL.
pub(super) struct Url {
    pub(super) config: Config,
    /// The PEM file whose certificates alone are trusted.
    pub(super) root_certificates: Option<PathBuf>,
    /// The store's schema.
    pub(super) schema: Option<String>,
    /// Connections in the store's pool.
    pub(super) pool_size: Option<usize>,
}

/// Parameters that the driver reads as libpq does.
const OF_THE_DRIVER: &[&str] = &[
    "application_name",
    "channel_binding",
    "connect_timeout",
    "dbname",
    "host",
    "hostaddr",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_retries",
    "load_balance_hosts",
    "options",
    "password",
    "port",
    "tcp_user_timeout",
    "user",
];

/// Parameters of libpq, with the values that match this store's behaviour.
const AS_IT_IS: &[(&str, &[&str])] = &[
    (
        "client_encoding",
        &["auto", "utf8", "UTF8", "utf-8", "UTF-8"],
    ),
    ("gssdelegation", &["0"]),
    ("gssencmode", &["disable", "prefer"]),
    ("replication", &["false", "off", "no", "0"]),
    ("ssl_min_protocol_version", &["TLSv1", "TLSv1.1", "TLSv1.2"]),
    ("sslcertmode", &["disable", "allow"]),
    ("sslcompression", &["0"]),
    ("sslnegotiation", &["postgres"]),
    ("sslsni", &["1"]),
];

impl Url {
    pub(super) fn parse(url: &str) -> Result<Self, StoreError> {
        let (scheme, rest) = url.split_once("://").unwrap_or_default();
        if !["postgres", "postgresql"]
            .iter()
            .any(|known| scheme.eq_ignore_ascii_case(known))
        {
            return Err(misconfigured(
                "the URL does not begin with postgres:// or postgresql://",
            ));
        }
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        // The driver ends the password at the first `@`. Another parser could read the URL differently, and the password
        // could be sent to another host.
        if query.contains('@') || place.matches('@').count() > 1 {
            return Err(misconfigured(
                "the URL has an @ too many: write @ as %40 and ? as %3F in a password or a parameter",
            ));
        }
        let mut read = Reading::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            read.pair(pair)?;
        }
        let all = format!("postgres://{place}?{}", read.for_the_driver.join("&"));
        // The driver's own error may quote the URL.
        let config = all.parse().map_err(|_| {
            misconfigured(
                "the URL cannot be read: postgres://USER:PASSWORD@HOST:PORT/DATABASE, with %XX for other characters \
                 than letters and digits in the password",
            )
        })?;
        read.finish(config)
    }
}

/// The parameters so far.
#[derive(Default)]
struct Reading<'a> {
    for_the_driver: Vec<&'a str>,
    sslmode: Option<SslMode>,
    target: Option<TargetSessionAttrs>,
    keepalives_count: Option<u32>,
    fallback_application_name: Option<String>,
    root_certificates: Option<PathBuf>,
    schema: Option<String>,
    pool_size: Option<usize>,
}

impl<'a> Reading<'a> {
    fn pair(&mut self, pair: &'a str) -> Result<(), StoreError> {
        let (name, value) = pair
            .split_once('=')
            .ok_or_else(|| parameter(pair, "has no value"))?;
        if OF_THE_DRIVER.contains(&name) {
            // Parsed alone, so that the error can name it.
            let alone = format!("postgres://?{pair}").parse::<Config>();
            alone.map_err(|_| parameter(name, "cannot be read"))?;
            self.for_the_driver.push(pair);
            return Ok(());
        }
        if let Some((_, taken)) = AS_IT_IS.iter().find(|(known, _)| *known == name) {
            return match taken.contains(&value) {
                true => Ok(()),
                false => Err(parameter(
                    name,
                    format!("can only be {}", taken.join(" or ")),
                )),
            };
        }
        let value = decode(value).ok_or_else(|| parameter(name, "has a broken %XX"))?;
        self.ours(name, value)
    }

    fn ours(&mut self, name: &str, value: String) -> Result<(), StoreError> {
        match name {
            "sslmode" => {
                self.sslmode = Some(match value.as_str() {
                    "disable" => SslMode::Disable,
                    // The order of attempts does not matter: neither is safe against an attacker on the network.
                    "allow" | "prefer" => SslMode::Prefer,
                    // With TLS the certificate is always verified.
                    "require" | "verify-ca" | "verify-full" => SslMode::Require,
                    _ => {
                        let modes =
                            "is none of disable, allow, prefer, require, verify-ca and verify-full";
                        return Err(parameter(name, modes));
                    }
                });
            }
            "sslrootcert" if value == "system" => self.root_certificates = None,
            "sslrootcert" => self.root_certificates = Some(value.into()),
            "target_session_attrs" => {
                self.target = Some(match value.as_str() {
                    "any" => TargetSessionAttrs::Any,
                    // A read-only primary cannot be used either.
                    "read-write" | "primary" => TargetSessionAttrs::ReadWrite,
                    _ => {
                        let why = "is none of any, read-write and primary: the store writes";
                        return Err(parameter(name, why));
                    }
                });
            }
            // libpq's name of `keepalives_retries`.
            "keepalives_count" => {
                let count = value.parse();
                self.keepalives_count =
                    Some(count.map_err(|_| parameter(name, "is not a number"))?);
            }
            "fallback_application_name" => self.fallback_application_name = Some(value),
            "schema" => self.schema = Some(value),
            "pool_max_conns" => {
                let size = value.parse().ok().filter(|size| *size > 0);
                self.pool_size =
                    Some(size.ok_or_else(|| parameter(name, "is not a number above 0"))?);
            }
            _ => return Err(parameter(name, "is not supported")),
        }
        Ok(())
    }

    fn finish(self, mut config: Config) -> Result<Url, StoreError> {
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err(misconfigured("the URL names no host"));
        }
        if let Some(mode) = self.sslmode {
            config.ssl_mode(mode);
        }
        if let Some(target) = self.target {
            config.target_session_attrs(target);
        }
        if let Some(count) = self.keepalives_count {
            config.keepalives_retries(count);
        }
        if config.get_application_name().is_none()
            && let Some(name) = self.fallback_application_name
        {
            config.application_name(name);
        }
        Ok(Url {
            // As in libpq, the file is not read without TLS.
            root_certificates: self
                .root_certificates
                .filter(|_| config.get_ssl_mode() != SslMode::Disable),
            config,
            schema: self.schema,
            pool_size: self.pool_size,
        })
    }
}

/// Decodes percent-encoding (RFC 3986 section 2.1). Returns `None` for an incomplete escape or invalid UTF-8.
fn decode(text: &str) -> Option<String> {
    let mut pieces = text.split('%');
    let mut octets = pieces.next()?.as_bytes().to_vec();
    for piece in pieces {
        let (escape, rest) = piece.split_at_checked(2)?;
        octets.extend_from_slice(&hex(escape)?);
        octets.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8(octets).ok()
}

#[cfg(test)]
#[path = "url_tests.rs"]
mod tests;
