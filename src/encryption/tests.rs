//! The example of RFC 8291 section 5, with the intermediate values of its Appendix A: the one
//! place where salt and key pair are not random.

use super::*;
use crate::encoding::{base64_any, base64url};
use crate::p256::{CryptoError, RustCrypto};
use crate::secret::SecretBytes;

const PLAINTEXT: &[u8] = b"When I grow up, I want to be a watermelon";
const AS_PRIVATE: &str = "yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw";
const AS_PUBLIC: &str =
    "BP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl7A8";
const UA_PRIVATE: &str = "q1dXpw3UpT5VOmu_cf_v6ih07Aems3njxI-JWgLcM94";
const AUTH_SECRET: &str = "BTBZMqHH6r4Tts7J_aSIgg";
const SALT: &str = "DGv6ra1nlYgDCS1FRnbzlw";
const ECDH_SECRET: &str = "kyrL1jIIOHEzg3sM2ZWRHDRB62YACZhhSlknJ672kSs";
const IKM: &str = "S4lYMb_L0FxCeq0WhDx813KgSYqU26kOyzWUdsXYyrg";
const BODY: &str = "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vC\
    YLocInmYWAmS6TlzAC8wEqKK6PBru3jl7A_yl95bQpu6cVPTpK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgS\
    xsj_Qulcy4a-fN";

/// A backend whose application server always has the RFC's key pair.
#[derive(Debug)]
struct Fixed<P>(P);

impl<P: P256> P256 for Fixed<P> {
    fn agree(&self, peer: &UaPublicKey) -> Result<Agreement, CryptoError> {
        let pair = UaSecretKey::from_bytes(&octets::<32>(AS_PRIVATE))?;
        let shared = self.0.agree_with(&pair, peer.as_bytes())?;
        Ok(Agreement::new(*pair.public().as_bytes(), shared))
    }

    fn agree_with(
        &self,
        own: &UaSecretKey,
        as_public: &[u8; 65],
    ) -> Result<SharedSecret, CryptoError> {
        self.0.agree_with(own, as_public)
    }
}

fn octets<const N: usize>(text: &str) -> [u8; N] {
    base64_any(text).unwrap().as_slice().try_into().unwrap()
}

fn ua_secret() -> UaSecretKey {
    UaSecretKey::from_bytes(&octets::<32>(UA_PRIVATE)).unwrap()
}

fn auth() -> AuthSecret {
    AuthSecret::parse(AUTH_SECRET).unwrap()
}

fn subscription() -> Subscription {
    let endpoint = "https://push.example.net/push/JzLQ3raZJfFBR0aqvOMsLrt54w4rJUsV".parse();
    Subscription::new(endpoint.unwrap(), *ua_secret().public(), auth())
}

fn encrypts_the_rfc_example(backend: impl P256) {
    let subscription = subscription();
    let agreement = Fixed(backend).agree(subscription.ua_public()).unwrap();
    assert_eq!(base64url(agreement.as_public()), AS_PUBLIC);
    assert_eq!(
        base64url(agreement.shared_secret().secret_bytes()),
        ECDH_SECRET
    );
    let body = seal(
        &agreement,
        &octets(SALT),
        &subscription,
        PLAINTEXT,
        Padding::None,
    );
    assert_eq!(base64url(&body.unwrap()), BODY);
}

#[test]
fn rust_crypto_encrypts_the_rfc_example() {
    encrypts_the_rfc_example(RustCrypto);
}

#[cfg(feature = "aws-lc-rs")]
#[test]
fn aws_lc_encrypts_the_rfc_example() {
    encrypts_the_rfc_example(crate::p256::AwsLc);
}

#[test]
fn the_input_keying_material_is_the_rfcs() {
    let shared = SharedSecret::new(SecretBytes::new(octets(ECDH_SECRET)));
    let ikm = derive_ikm(
        &auth(),
        &shared,
        ua_secret().public(),
        &octets::<65>(AS_PUBLIC),
    );
    assert_eq!(base64url(&*ikm), IKM);
}

#[test]
fn content_encryption_key_and_nonce_are_the_rfcs() {
    let prk = ece::extract(&octets::<16>(SALT), &octets::<32>(IKM));
    let cek = ece::expand::<16>(&prk, &[b"Content-Encoding: aes128gcm\0"]);
    let nonce = ece::expand::<12>(&prk, &[b"Content-Encoding: nonce\0"]);
    assert_eq!(base64url(&*cek), "oIhVW04MRdy2XN9CiKLxTg");
    assert_eq!(base64url(&*nonce), "4h_95klXJ5E_qnoN");
}

#[test]
fn a_failing_backend_is_an_error_with_its_cause() {
    #[derive(Debug)]
    struct Broken;
    impl P256 for Broken {
        fn agree(&self, _: &UaPublicKey) -> Result<Agreement, CryptoError> {
            Err(CryptoError::new())
        }
        fn agree_with(&self, _: &UaSecretKey, _: &[u8; 65]) -> Result<SharedSecret, CryptoError> {
            Err(CryptoError::new())
        }
    }
    let error = encrypt(&Broken, &subscription(), b"", Padding::None).unwrap_err();
    assert_eq!(error.kind(), EncryptErrorKind::Backend);
    let source = std::error::Error::source(&error).unwrap();
    assert!(source.is::<CryptoError>());
    let error = decrypt(&Broken, &ua_secret(), &auth(), &octets::<144>(BODY)).unwrap_err();
    assert_eq!(error.kind(), DecryptErrorKind::Malformed);
}

#[test]
fn the_body_is_allocated_once() {
    let body = encrypt(&RustCrypto, &subscription(), b"hello", Padding::default()).unwrap();
    assert_eq!(body.len(), OVERHEAD + 256);
    // A vector that grew, or with room to spare, would come back with a larger capacity.
    let octets = Vec::from(body);
    assert_eq!(octets.capacity(), octets.len());
}
