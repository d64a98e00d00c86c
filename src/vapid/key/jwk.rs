//! JSON: a JWK (RFC 7517, RFC 7518 section 6.2), or the pair that `web-push generate-vapid-keys --json`
//! prints.

use serde::{Deserialize, Deserializer};
use zeroize::Zeroizing;

use super::VapidKey;
use crate::encoding::{base64_any, base64url};
use crate::vapid::{VapidError, VapidErrorKind, VapidPublicKey};

impl VapidKey {
    /// Takes a private JWK in: `kty` EC, `crv` P-256, `d`, `x` and `y`.
    ///
    /// `use` and `alg`, when given, must be `sig` and `ES256`: a key for ECDH must not sign (RFC 8292
    /// section 3.2). Other members are ignored.
    ///
    /// # Errors
    ///
    /// [`InvalidPrivateKey`](VapidErrorKind::InvalidPrivateKey),
    /// [`InvalidPublicKey`](VapidErrorKind::InvalidPublicKey) or
    /// [`KeyPairMismatch`](VapidErrorKind::KeyPairMismatch).
    pub fn from_jwk(json: &str) -> Result<Self, VapidError> {
        let jwk: Jwk = serde_json::from_str(json).map_err(|_| INVALID)?;
        let fits = jwk.kty == "EC"
            && jwk.crv == "P-256"
            && jwk.alg.is_none_or(|alg| alg == "ES256")
            && jwk.usage.is_none_or(|usage| usage == "sig");
        if !fits {
            return Err(INVALID.into());
        }
        let d = base64_any(&jwk.d.0).ok_or(INVALID)?;
        Self::from_secret_bytes(&d)?.stated(&point(&jwk.x, &jwk.y)?)
    }

    /// A private JWK with `kty`, `crv`, `x`, `y` and `d`.
    #[must_use]
    pub fn secret_to_jwk(&self) -> Zeroizing<String> {
        let (x, y) = self.public_key.coordinates();
        // Large enough, so that it never grows and leaves a copy behind.
        let mut json = Zeroizing::new(String::with_capacity(256));
        json.push_str(&format!(
            r#"{{"kty":"EC","crv":"P-256","x":"{}","y":"{}","d":""#,
            base64url(x),
            base64url(y)
        ));
        json.push_str(&self.secret_to_raw_base64url());
        json.push_str(r#""}"#);
        json
    }

    /// A JWK, or an object with `privateKey` and `publicKey`.
    pub(super) fn from_json(json: &str) -> Result<Self, VapidError> {
        match serde_json::from_str::<Pair>(json) {
            Ok(pair) => {
                let key = Self::from_raw_base64(&pair.private_key.0)?;
                key.stated(&VapidPublicKey::parse(&pair.public_key)?)
            }
            Err(_) => Self::from_jwk(json),
        }
    }
}

// The parser's own errors quote what they met: never a source here.
const INVALID: VapidErrorKind = VapidErrorKind::InvalidPrivateKey;

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    crv: String,
    d: Secret,
    x: String,
    y: String,
    alg: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Pair {
    public_key: String,
    private_key: Secret,
}

/// A string that is wiped on drop.
struct Secret(Zeroizing<String>);

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(Zeroizing::new(text)))
    }
}

/// Both coordinates have exactly 32 octets (RFC 7518 section 6.2.1.2).
fn point(x: &str, y: &str) -> Result<VapidPublicKey, VapidError> {
    let coordinate = |text| {
        base64_any(text)
            .filter(|octets| octets.len() == 32)
            .ok_or(VapidErrorKind::InvalidPublicKey)
    };
    let (x, y) = (coordinate(x)?, coordinate(y)?);
    VapidPublicKey::from_bytes(&[&[0x04], x.as_slice(), y.as_slice()].concat())
}
