//! Makes a VAPID key pair, or prints an existing one in its other forms.
//!
//! ```sh
//! cargo run --example vapid_keys                 # a new one
//! cargo run --example vapid_keys -- private.pem  # from a file: PEM, DER, JWK or raw, also in base64 or hex
//! cargo run --example vapid_keys -- - < key.txt  # from standard input
//! ```

#[path = "support/causes.rs"]
mod causes;

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Read as _};
use std::process::ExitCode;

use tower_web_push::vapid::VapidKey;

use causes::with_causes;

fn main() -> ExitCode {
    match key(env::args_os().nth(1)) {
        Ok(key) => {
            print_forms(&key);
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::FAILURE
        }
    }
}

fn key(file: Option<OsString>) -> Result<VapidKey, String> {
    let Some(file) = file else {
        return VapidKey::generate().map_err(with_causes);
    };
    let mut input = Vec::new();
    let read = match file.to_str() {
        Some("-") => io::stdin().read_to_end(&mut input).map(|_| input),
        _ => fs::read(&file),
    };
    read.map_err(with_causes)
        .and_then(|text| VapidKey::parse(&text).map_err(with_causes))
        .map_err(|why| format!("{}: {why}", file.display()))
}

fn print_forms(key: &VapidKey) {
    println!("Public key, for the page (applicationServerKey):");
    println!("{}\n", key.public_key().to_base64url());
    println!("Private key, for VAPID_PRIVATE_KEY. Keep it secret: it signs messages in your name:");
    println!("{}\n", *key.secret_to_raw_base64url());
    println!("The same as PEM:");
    print!("{}", *key.secret_to_pkcs8_pem());
}
