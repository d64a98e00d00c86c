//! Writes the work of the senders: `work FOLDER SUBSCRIPTIONS PORT [ORIGINS]`.
//!
//! The endpoints are those of the push service on the port. With more than one origin they can only be prepared for.

use std::fs;
use std::path::Path;

use tower_web_push::p256::UaSecretKey;
use tower_web_push::vapid::VapidKey;
use tower_web_push_peers::{Result, Stored, Work};

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (folder, subscriptions, port, origins) = match &args[..] {
        [folder, subscriptions, port] => (folder, subscriptions, port, 1),
        [folder, subscriptions, port, origins] => (folder, subscriptions, port, origins.parse()?),
        _ => return Err("usage: work FOLDER SUBSCRIPTIONS PORT [ORIGINS]".into()),
    };
    let key = VapidKey::generate()?;
    let subscriptions = (0..subscriptions.parse()?).map(|number: usize| {
        let host = match (origins, number % origins) {
            (1, _) => "localhost".to_owned(),
            (_, origin) => format!("push{origin}.example.net"),
        };
        let random = *UaSecretKey::random()?.public();
        Ok(Stored {
            endpoint: format!("https://{host}:{port}/push/{number:064}"),
            p256dh: random.to_base64url(),
            auth: auth(number),
        })
    });
    let work = Work {
        contact: "mailto:ops@example.com".to_owned(),
        private_key: key.secret_to_raw_base64url().to_string(),
        public_key: key.public_key().to_base64url(),
        subscriptions: subscriptions.collect::<Result<_>>()?,
    };
    let file = Path::new(folder).join("work.json");
    Ok(fs::write(file, serde_json::to_vec(&work)?)?)
}

/// 16 octets in base64url; that they can be guessed does not matter here.
fn auth(number: usize) -> String {
    let octets = (number as u128).to_be_bytes();
    <base64ct::Base64UrlUnpadded as base64ct::Encoding>::encode_string(&octets)
}
