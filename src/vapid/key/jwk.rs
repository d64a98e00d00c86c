//! JSON: a JWK (RFC 7517, RFC 7518 section 6.2), or a pair: of JWKs, as WebCrypto exports them, or of base64, as
//! `web-push generate-vapid-keys --json` prints it.

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use super::VapidKey;
use crate::encoding::base64_any;
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
    /// [`NotP256`](VapidErrorKind::NotP256) for another `kty` or `crv`,
    /// [`PublicKeyGiven`](VapidErrorKind::PublicKeyGiven) without `d`,
    /// [`InvalidPublicKey`](VapidErrorKind::InvalidPublicKey) or
    /// [`KeyPairMismatch`](VapidErrorKind::KeyPairMismatch).
    fn from_jwk(json: &str) -> Result<Self, VapidError> {
        let jwk = Jwk::read(json)?;
        let d = jwk.d.as_ref().ok_or(VapidErrorKind::PublicKeyGiven)?;
        let d = base64_any(&d.0).ok_or(INVALID)?;
        Self::from_secret_bytes(&d)?.stated(&jwk.public_key()?)
    }

    /// A JWK, or an object with `privateKey` and `publicKey`.
    pub(super) fn from_json(json: &str) -> Result<Self, VapidError> {
        match serde_json::from_str::<Pair>(json) {
            Ok(pair) => Self::from_pair(&pair),
            Err(_) => Self::from_jwk(json),
        }
    }

    fn from_pair(pair: &Pair<'_>) -> Result<Self, VapidError> {
        let key = match serde_json::from_str::<Secret>(pair.private_key.get()) {
            Ok(text) => Self::from_raw_base64(&text.0)?,
            Err(_) => Self::from_jwk(pair.private_key.get())?,
        };
        let public_key = match serde_json::from_str::<String>(pair.public_key.get()) {
            Ok(text) => VapidPublicKey::parse(&text)?,
            Err(_) => Jwk::read(pair.public_key.get())?.public_key()?,
        };
        key.stated(&public_key)
    }
}

// The parser's own errors quote what they met: never a source here.
const INVALID: VapidErrorKind = VapidErrorKind::InvalidPrivateKey;

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    crv: Option<String>,
    d: Option<Secret>,
    x: Option<String>,
    y: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
}

impl Jwk {
    /// Reads a JWK for signatures on P-256, private or public.
    fn read(json: &str) -> Result<Self, VapidError> {
        let jwk: Self = serde_json::from_str(json).map_err(|_| INVALID)?;
        if jwk.kty != "EC" || jwk.crv.as_deref() != Some("P-256") {
            return Err(VapidErrorKind::NotP256.into());
        }
        let alg = jwk.alg.as_deref().unwrap_or("ES256");
        let usage = jwk.usage.as_deref().unwrap_or("sig");
        match (alg, usage) {
            ("ES256", "sig") => Ok(jwk),
            _ => Err(INVALID.into()),
        }
    }

    /// Both coordinates have exactly 32 octets (RFC 7518 section 6.2.1.2).
    fn public_key(&self) -> Result<VapidPublicKey, VapidError> {
        let coordinate = |text: &Option<String>| {
            base64_any(text.as_deref().ok_or(INVALID)?)
                .filter(|octets| octets.len() == 32)
                .ok_or(VapidErrorKind::InvalidPublicKey)
        };
        let (x, y) = (coordinate(&self.x)?, coordinate(&self.y)?);
        VapidPublicKey::from_bytes(&[&[0x04], x.as_slice(), y.as_slice()].concat())
    }
}

/// Each member is a JWK or a string in base64. As it stands in the input: no copy of the secret.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Pair<'a> {
    #[serde(borrow)]
    public_key: &'a RawValue,
    #[serde(borrow)]
    private_key: &'a RawValue,
}

/// A string that is wiped on drop.
struct Secret(Zeroizing<String>);

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(Zeroizing::new(text)))
    }
}
