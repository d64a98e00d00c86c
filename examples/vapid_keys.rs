//! Makes a VAPID key pair, or shows one that exists in its other forms.
//!
//! ```sh
//! cargo run --example vapid_keys                 # a new one
//! cargo run --example vapid_keys -- private.pem  # from a file: PEM, DER in base64, JWK or raw
//! cargo run --example vapid_keys -- - < key.txt  # from standard input
//! ```

use std::env;
use std::error::Error;
use std::fs;
use std::io::{self, Read as _};

use tower_web_push::vapid::VapidKey;

fn main() -> Result<(), Box<dyn Error>> {
    let key = match env::args_os().nth(1) {
        None => VapidKey::generate()?,
        Some(name) if name == "-" => {
            let mut text = Vec::new();
            io::stdin().read_to_end(&mut text)?;
            VapidKey::parse(text.trim_ascii())?
        }
        Some(path) => VapidKey::parse(fs::read(path)?.trim_ascii())?,
    };

    println!("Public key, for the page (applicationServerKey):");
    println!("{}\n", key.public_key().to_base64url());
    println!("Private key, for VAPID_PRIVATE_KEY. Whoever has it can send in your name:");
    println!("{}\n", *key.secret_to_raw_base64url());
    println!("The same as PEM:");
    print!("{}", *key.secret_to_pkcs8_pem());
    Ok(())
}
