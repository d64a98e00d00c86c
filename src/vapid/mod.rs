//! VAPID: authentication of the sender at a push service (RFC 8292).
//!
//! A [`VapidKey`] signs tokens for a push service's origin, a [`Contact`] is an address of the operator, and a
//! [`Signer`] caches one `Authorization` value per origin. [`verify`] is the other side, for push services in tests.
//!
//! # Examples
//!
//! ```
//! use tower_web_push::clock::{Clock, SystemClock};
//! use tower_web_push::subscription::Origin;
//! use tower_web_push::vapid::{self, Contact, Signer, VapidKey};
//!
//! let key = VapidKey::generate()?;
//! let contact = Contact::parse("mailto:ops@example.com")?;
//! let origin = Origin::parse("https://push.example.net")?;
//! let now = SystemClock::new().now();
//!
//! let signer = Signer::new();
//! let authorization = signer.authorization(&key, &origin, &contact, now)?;
//! let verified = vapid::verify(&authorization, &origin, now)?;
//! assert_eq!(verified.public_key(), key.public_key());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod authorization;
mod contact;
mod error;
mod key;
mod key_id;
mod public_key;
#[cfg(feature = "_engine")]
mod sealed;
mod signer;
mod token;
mod verify;

pub use contact::Contact;
pub use error::{VapidError, VapidErrorKind};
pub use key::VapidKey;
pub use key_id::KeyId;
pub use public_key::VapidPublicKey;
#[cfg(feature = "_engine")]
pub use sealed::{KeyEncryptionKeys, SealedVapidKey};
pub use signer::Signer;
pub use verify::{Verified, verify};
